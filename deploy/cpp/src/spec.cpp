#include "spec.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "error.hpp"

namespace fs = std::filesystem;

namespace {

YAML::Node deploy_node(const fs::path& path) {
  if (!fs::is_regular_file(path)) {
    throw InputError(path.string() + ": there is no such file. Give the deploy.yaml of an exported folder (segkit export writes one).");
  }
  YAML::Node content;
  try {
    content = YAML::LoadFile(path.string());
  } catch (const YAML::Exception& error) {
    throw InputError(path.string() + ":" + std::to_string(error.mark.line + 1) + ": this is not valid YAML (" + error.msg + ").");
  }
  const YAML::Node node = content.IsMap() ? content["Deploy"] : YAML::Node();
  if (!node || !node.IsMap()) {
    throw InputError(path.string() + ": there is no section 'Deploy:'. Give the deploy.yaml of an exported folder.");
  }
  return node;
}

/// The value of `key`, or `otherwise` where it is absent or null.
template <typename Value>
Value value_of(const YAML::Node& node, const char* key, const Value& otherwise, const fs::path& path) {
  if (!node[key] || node[key].IsNull()) return otherwise;
  try {
    return node[key].as<Value>();
  } catch (const YAML::Exception&) {
    throw InputError(path.string() + ": Deploy." + key + ": this value is of a wrong kind. Export the model again.");
  }
}

/// The file that OpenVINO reads: its own, ONNX, or Paddle's older format.
fs::path model_file(const YAML::Node& node, const fs::path& path) {
  for (const char* key : {"openvino", "onnx", "model"}) {
    const auto name = value_of<std::string>(node, key, "", path);
    if (name.empty() || fs::path(name).extension() == ".json") continue;
    const fs::path file = path.parent_path() / name;
    if (!fs::is_regular_file(file)) {
      throw InputError(path.string() + ": Deploy." + key + " names " + name + ", which is not in " +
                       path.parent_path().string() + ". Copy the whole exported folder, or export again.");
    }
    return file;
  }
  throw InputError(path.string() + ": this folder holds no model that OpenVINO reads. Export it with --format openvino (or onnx, or all).");
}

/// The PASCAL VOC colours: bits of the number dealt out to red, green and blue in turn, from the highest bit down.
cv::Vec3b voc_colour(int number) {
  cv::Vec3b colour(0, 0, 0);
  for (int step = 0; step < 8; ++step) {
    for (int channel = 0; channel < 3; ++channel) {
      colour[channel] = static_cast<uchar>(colour[channel] | (((number >> (3 * step + channel)) & 1) << (7 - step)));
    }
  }
  return colour;
}

std::vector<cv::Vec3b> full_palette(const std::vector<std::array<int, 3>>& own) {
  std::vector<cv::Vec3b> colours;
  for (int number = 0; number < std::max<int>(256, static_cast<int>(own.size())); ++number) {
    colours.push_back(voc_colour(number));
  }
  for (size_t number = 0; number < own.size(); ++number) {
    for (int channel = 0; channel < 3; ++channel) colours[number][channel] = cv::saturate_cast<uchar>(own[number][channel]);
  }
  return colours;
}

}  // namespace

DeploySpec DeploySpec::load(fs::path path) {
  if (fs::is_directory(path)) path /= "deploy.yaml";
  const YAML::Node node = deploy_node(path);
  DeploySpec spec;
  spec.path = path;
  spec.model = model_file(node, path);
  spec.transforms = node["transforms"];
  if (!spec.transforms || !spec.transforms.IsSequence()) {
    throw InputError(path.string() + ": Deploy.transforms is missing. Export the model again.");
  }
  spec.input_shape = value_of(node, "input_shape", spec.input_shape, path);
  spec.bytes = value_of<std::string>(node, "input_dtype", "float32", path) == "uint8";
  spec.probabilities = value_of<std::string>(node, "output_op", "none", path) == "softmax";
  const float none = -1;
  const float threshold = value_of(node, "threshold", none, path);
  if (threshold != none) spec.threshold = threshold;
  spec.channels = value_of(node, "img_channels", spec.input_shape[1] > 0 ? spec.input_shape[1] : 3, path);
  spec.palette = full_palette(value_of<std::vector<std::array<int, 3>>>(node, "palette", {}, path));
  if (node["test_config"] && node["test_config"]["is_slide"] && node["test_config"]["is_slide"].as<bool>(false)) {
    throw InputError(path.string() + ": Deploy.test_config: sliding windows are not done by this program. Use infer.py.");
  }
  using Usual = std::pair<const char*, std::string>;
  for (const auto& [key, usual] : {Usual("multilabel", "false"), Usual("nodata", "false"), Usual("scores_are", "logits")}) {
    const auto text = value_of(node, key, usual, path);
    if (text != usual) {
      throw InputError(path.string() + ": Deploy." + key + " is not done by this program (got " + text + "). Use infer.py.");
    }
  }
  return spec;
}
