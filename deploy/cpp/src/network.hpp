#pragma once

#include <string>

#include <openvino/runtime/compiled_model.hpp>
#include <openvino/runtime/infer_request.hpp>
#include <openvino/runtime/tensor.hpp>

#include "spec.hpp"
#include "transforms.hpp"

/// An exported model on the CPU by OpenVINO.
class Network {
 public:
  /// `threads`: 0 leaves the number to OpenVINO. `precision`: fp32 or bf16. InputError where the model cannot be loaded.
  Network(const DeploySpec& spec, int threads, const std::string& precision);

  /// The mask of one photo at its own size. InputError where the transforms do not give what the model takes.
  cv::Mat segment(const cv::Mat& photo);

 private:
  ov::Tensor input(const cv::Mat& image) const;
  cv::Mat mask_of(const ov::Tensor& output, const Geometry& geometry) const;

  DeploySpec spec_;
  std::vector<Transform> transforms_;
  ov::CompiledModel model_;
  ov::InferRequest request_;
};
