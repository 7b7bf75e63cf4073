#include "network.hpp"

#include <algorithm>

#include <openvino/runtime/core.hpp>
#include <openvino/runtime/properties.hpp>

#include "error.hpp"
#include "mask.hpp"

namespace {

ov::CompiledModel compile(const DeploySpec& spec, int threads, const std::string& precision) {
  // Newer processors compute in bf16 unless told otherwise.
  ov::AnyMap settings = {ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                         ov::hint::inference_precision(precision == "bf16" ? ov::element::bf16 : ov::element::f32)};
  if (threads > 0) settings.insert(ov::inference_num_threads(threads));
  try {
    ov::Core core;
    return core.compile_model(core.read_model(spec.model.string()), "CPU", settings);
  } catch (const ov::Exception& error) {
    throw InputError(spec.model.string() + ": OpenVINO cannot load this model (" + error.what() +
                     "). Copy it again, or export it again.");
  }
}

}  // namespace

Network::Network(const DeploySpec& spec, int threads, const std::string& precision)
    : spec_(spec),
      transforms_(build_transforms(spec.transforms, spec.path.string())),
      model_(compile(spec, threads, precision)),
      request_(model_.create_infer_request()) {
  if (spec.input_shape[0] > 1) {
    throw InputError(spec.path.string() + ": the model takes " + std::to_string(spec.input_shape[0]) +
                     " photos at once, this program one. Export it with --input_shape -1 ...");
  }
}

cv::Mat Network::segment(const cv::Mat& photo) {
  Geometry geometry;
  cv::Mat image = photo;
  for (const Transform& transform : transforms_) image = transform(image, geometry);
  request_.set_input_tensor(input(image));
  request_.infer();
  return mask_of(request_.get_output_tensor(), geometry);
}

/// [H, W, C] as the graph takes it: float32 NCHW, or uint8 NHWC where normalisation is in the graph.
ov::Tensor Network::input(const cv::Mat& image) const {
  const int rows = spec_.input_shape[2], columns = spec_.input_shape[3];
  if ((rows > 0 && rows != image.rows) || (columns > 0 && columns != image.cols)) {
    throw InputError(spec_.path.string() + ": the model takes " + std::to_string(rows) + " rows and " + std::to_string(columns) +
                     " columns, but the transforms give " + std::to_string(image.rows) + " and " + std::to_string(image.cols) +
                     ". Resize in the transforms, or export with --input_shape -1 C -1 -1.");
  }
  const auto height = static_cast<size_t>(image.rows), width = static_cast<size_t>(image.cols);
  const auto channels = static_cast<size_t>(image.channels());
  if (spec_.bytes) {
    if (image.depth() != CV_8U) {
      throw InputError(spec_.path.string() + ": the model takes photos of 8 bits. Export it without --fold_preprocess.");
    }
    ov::Tensor tensor(ov::element::u8, {1, height, width, channels});
    image.copyTo(cv::Mat(image.size(), image.type(), tensor.data<uint8_t>()));
    return tensor;
  }
  ov::Tensor tensor(ov::element::f32, {1, channels, height, width});
  cv::Mat floats;
  image.convertTo(floats, CV_32F);
  std::vector<cv::Mat> planes;
  for (size_t band = 0; band < channels; ++band) {
    planes.emplace_back(image.size(), CV_32F, tensor.data<float>() + band * height * width);
  }
  cv::split(floats, planes);
  return tensor;
}

cv::Mat Network::mask_of(const ov::Tensor& output, const Geometry& geometry) const {
  const ov::Shape shape = output.get_shape();
  const int height = static_cast<int>(shape[shape.size() - 2]), width = static_cast<int>(shape.back());
  if (shape.size() == 4) {
    std::vector<cv::Mat> planes;
    for (size_t number = 0; number < shape[1]; ++number) {
      const size_t start = number * static_cast<size_t>(height) * static_cast<size_t>(width);
      planes.emplace_back(height, width, CV_32F, const_cast<float*>(output.data<const float>()) + start);
    }
    return class_map(std::move(planes), geometry, spec_);
  }
  cv::Mat labels(height, width, CV_32S);
  const auto copy = [&](const auto* numbers) {
    std::transform(numbers, numbers + labels.total(), labels.begin<int>(), [](auto value) { return static_cast<int>(value); });
  };
  if (output.get_element_type() == ov::element::u8) {
    copy(output.data<const uint8_t>());
  } else if (output.get_element_type() == ov::element::i64) {
    copy(output.data<const int64_t>());
  } else {
    copy(output.data<const int32_t>());
  }
  return label_map(labels, geometry);
}
