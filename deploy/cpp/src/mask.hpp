#pragma once

#include <vector>

#include <opencv2/core.hpp>

#include "spec.hpp"
#include "transforms.hpp"

/// Scores, one CV_32F plane a class at network size -> classes at the photo's size, CV_8U (CV_16U from 256 classes on).
/// One plane: foreground where its probability is above the threshold (0.5); more: the class of the highest score,
/// 255 where its probability is below the threshold.
cv::Mat class_map(std::vector<cv::Mat> planes, const Geometry& geometry, const DeploySpec& spec);

/// Class numbers CV_32S at network size -> the photo's size by nearest neighbour.
cv::Mat label_map(const cv::Mat& labels, const Geometry& geometry);
