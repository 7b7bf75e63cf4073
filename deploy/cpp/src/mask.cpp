#include "mask.hpp"

#include <cmath>
#include <limits>

#include <opencv2/imgproc.hpp>

namespace {

constexpr int kUnsure = 255;

/// Nearest neighbours counted in 32-bit floats, as masks are enlarged everywhere in the toolkit.
cv::Mat resize_nearest(const cv::Mat& plane, cv::Size to) {
  const auto places = [](int from, int size) {
    std::vector<int> found(static_cast<size_t>(size));
    const auto scale = static_cast<float>(static_cast<double>(from) / size);
    for (int at = 0; at < size; ++at) found[static_cast<size_t>(at)] = static_cast<int>(static_cast<float>(at) * scale);
    return found;
  };
  const auto rows = places(plane.rows, to.height), columns = places(plane.cols, to.width);
  cv::Mat resized(to, CV_32S);
  for (int y = 0; y < to.height; ++y) {
    const int* from = plane.ptr<int>(rows[static_cast<size_t>(y)]);
    for (int x = 0; x < to.width; ++x) resized.at<int>(y, x) = from[columns[static_cast<size_t>(x)]];
  }
  return resized;
}

/// One plane through all steps backwards; padding stands to the right and at the bottom.
cv::Mat undo(cv::Mat plane, const Geometry& geometry) {
  for (auto step = geometry.rbegin(); step != geometry.rend(); ++step) {
    if (step->kind == Step::Kind::pad) {
      plane = plane(cv::Rect(cv::Point(), step->from));
    } else if (plane.size() != step->from) {
      cv::Mat resized;
      if (plane.type() == CV_32S) {
        resized = resize_nearest(plane, step->from);
      } else {
        cv::resize(plane, resized, step->from, 0, 0, cv::INTER_LINEAR);
      }
      plane = resized;
    }
  }
  return plane;
}

/// Probabilities as scores again: their logarithm differs from the scores by one number a pixel.
void to_scores(std::vector<cv::Mat>& planes) {
  constexpr float kTiny = std::numeric_limits<float>::min();
  for (cv::Mat& plane : planes) {
    cv::Mat score;
    cv::log(cv::max(plane, kTiny), score);
    if (planes.size() == 1) {
      cv::Mat other;
      cv::log(cv::max(1 - plane, kTiny), other);
      score -= other;
    }
    plane = score;
  }
}

}  // namespace

cv::Mat class_map(std::vector<cv::Mat> planes, const Geometry& geometry, const DeploySpec& spec) {
  if (spec.probabilities) to_scores(planes);
  if (planes.size() == 1) {
    const double threshold = spec.threshold.value_or(0.5f);
    return (undo(planes[0], geometry) > std::log(threshold / (1 - threshold))) / 255;
  }
  cv::Mat best = undo(planes[0], geometry).clone();
  cv::Mat classes(best.size(), planes.size() > 256 ? CV_16U : CV_8U, cv::Scalar(0));
  for (size_t number = 1; number < planes.size(); ++number) {
    const cv::Mat plane = undo(planes[number], geometry);
    classes.setTo(static_cast<double>(number), plane > best);
    cv::max(best, plane, best);
  }
  if (spec.threshold) {
    cv::Mat total = cv::Mat::zeros(best.size(), CV_32F), power;
    for (const cv::Mat& scores : planes) {
      cv::exp(undo(scores, geometry) - best, power);
      total += power;
    }
    classes.setTo(kUnsure, 1 / total < *spec.threshold);
  }
  return classes;
}

cv::Mat label_map(const cv::Mat& labels, const Geometry& geometry) {
  const cv::Mat found = undo(labels, geometry);
  double most = 0;
  cv::minMaxLoc(found, nullptr, &most);
  cv::Mat mask;
  found.convertTo(mask, most > 255 ? CV_16U : CV_8U);
  return mask;
}
