#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <vector>

#include <opencv2/core.hpp>
#include <yaml-cpp/yaml.h>

/// What an exported folder says about itself in deploy.yaml, the file that infer.py reads.
struct DeploySpec {
  std::filesystem::path path;          ///< the deploy.yaml
  std::filesystem::path model;         ///< model.xml, model.onnx or model.pdmodel beside it
  YAML::Node transforms;               ///< a list of {type: ..., arguments}
  std::array<int, 4> input_shape{-1, 3, -1, -1};  ///< N, C, H, W; -1 for any
  bool bytes = false;                  ///< the graph takes uint8 NHWC and normalises itself
  bool probabilities = false;          ///< the graph ends in softmax or sigmoid
  std::optional<float> threshold;
  int channels = 3;
  std::vector<cv::Vec3b> palette;      ///< RGB of 256 or more values

  /// Read a deploy.yaml, or the one in a folder. InputError: missing, damaged, or of a kind this program does not run.
  static DeploySpec load(std::filesystem::path path);
};
