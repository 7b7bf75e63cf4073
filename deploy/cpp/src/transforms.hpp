#pragma once

#include <functional>
#include <string>
#include <vector>

#include <opencv2/core.hpp>
#include <yaml-cpp/yaml.h>

/// One step of what the transforms did, so that the mask is put back exactly onto the photo.
struct Step {
  enum class Kind { resize, pad } kind;
  cv::Size from, to;
};
using Geometry = std::vector<Step>;

/// (image, geometry) -> image.
using Transform = std::function<cv::Mat(const cv::Mat&, Geometry&)>;

/// The transforms of deploy.yaml; `where` is used in messages. InputError names the one that is not known.
std::vector<Transform> build_transforms(const YAML::Node& nodes, const std::string& where);
