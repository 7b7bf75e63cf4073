#include "transforms.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include <opencv2/imgproc.hpp>

#include "error.hpp"

namespace {

using Numbers = std::vector<double>;

const std::map<std::string, int> kInterpolations = {{"NEAREST", cv::INTER_NEAREST},
                                                    {"LINEAR", cv::INTER_LINEAR},
                                                    {"CUBIC", cv::INTER_CUBIC},
                                                    {"AREA", cv::INTER_AREA},
                                                    {"LANCZOS4", cv::INTER_LANCZOS4}};

/// The arguments of one transform: every one is asked for once, and one that nobody asked for is refused.
class Arguments {
 public:
  Arguments(const YAML::Node& node, std::string where) : node_(node), where_(std::move(where)) {}

  template <typename Value>
  std::optional<Value> find(const std::string& name) {
    asked_.push_back(name);
    if (!node_[name] || node_[name].IsNull()) return std::nullopt;
    try {
      return node_[name].as<Value>();
    } catch (const YAML::Exception&) {
      throw InputError(where_ + ": wrong value of `" + name + "`. Mend it in the config and export again.");
    }
  }

  template <typename Value>
  Value get(const std::string& name) {
    const auto found = find<Value>(name);
    if (!found) throw InputError(where_ + ": `" + name + "` is missing. Export the model again.");
    return *found;
  }

  /// A list of numbers; a single number is a list of one.
  Numbers numbers(const std::string& name, Numbers otherwise) {
    if (node_[name] && node_[name].IsScalar()) return {get<double>(name)};
    return find<Numbers>(name).value_or(otherwise);
  }

  void refuse_others() const {
    for (const auto& item : node_) {
      const auto name = item.first.as<std::string>();
      if (name != "type" && std::find(asked_.begin(), asked_.end(), name) == asked_.end()) {
        throw InputError(where_ + ": there is no argument `" + name + "`. Mend it in the config and export again.");
      }
    }
  }

  const std::string& where() const { return where_; }

 private:
  YAML::Node node_;
  std::string where_;
  std::vector<std::string> asked_;
};

/// Both sides times `scale`, rounded half to even as Python does.
cv::Size scaled(cv::Size size, double scale) {
  return {static_cast<int>(std::nearbyint(size.width * scale)), static_cast<int>(std::nearbyint(size.height * scale))};
}

cv::Mat resize(const cv::Mat& image, cv::Size to, int interpolation, Geometry& geometry) {
  if (to.width < 1 || to.height < 1) throw InputError("resizing leaves nothing of the image. Leave out this image.");
  geometry.push_back({Step::Kind::resize, image.size(), to});
  if (to == image.size()) return image;
  cv::Mat resized;
  cv::resize(image, resized, to, 0, 0, interpolation);
  return resized;
}

/// A value for each of up to four channels; one value is for all.
cv::Scalar spread(const Numbers& values, const cv::Mat& image, const std::string& where) {
  const auto channels = static_cast<size_t>(image.channels());
  if (values.empty() || (values.size() != 1 && values.size() != channels)) {
    throw InputError(where + ": got " + std::to_string(values.size()) + " numbers, but the image has " +
                     std::to_string(channels) + " bands. Give one number, or one a band.");
  }
  cv::Scalar spread_values;
  for (size_t at = 0; at < std::min<size_t>(channels, 4); ++at) spread_values[static_cast<int>(at)] = values[values.size() == 1 ? 0 : at];
  return spread_values;
}

cv::Mat pad(const cv::Mat& image, cv::Size to, const cv::Scalar& value, Geometry& geometry) {
  if (to == image.size()) return image;
  geometry.push_back({Step::Kind::pad, image.size(), to});
  cv::Mat padded;
  cv::copyMakeBorder(image, padded, 0, to.height - image.rows, 0, to.width - image.cols, cv::BORDER_CONSTANT, value);
  return padded;
}

Transform make_resize(Arguments& arguments) {
  const auto target = arguments.find<std::vector<int>>("target_size").value_or(std::vector<int>{512, 512});
  const auto interp = arguments.find<std::string>("interp").value_or("LINEAR");
  const bool keep_ratio = arguments.find<bool>("keep_ratio").value_or(false);
  const int divisor = arguments.find<int>("size_divisor").value_or(1);
  if (target.size() != 2) throw InputError(arguments.where() + ": target_size is [width, height].");
  if (kInterpolations.count(interp) == 0) {
    throw InputError(arguments.where() + ": interp " + interp + " is not done by this program. Export with LINEAR.");
  }
  return [=, code = kInterpolations.at(interp)](const cv::Mat& image, Geometry& geometry) {
    double width = target[0], height = target[1];
    if (keep_ratio) {
      const double scale = std::min(std::max(width, height) / std::max(image.cols, image.rows),
                                    std::min(width, height) / std::min(image.cols, image.rows));
      width = std::floor(image.cols * scale + 0.5);
      height = std::floor(image.rows * scale + 0.5);
    }
    const auto fitted = [&](double side) { return static_cast<int>(std::ceil(side / divisor)) * divisor; };
    return resize(image, {fitted(width), fitted(height)}, code, geometry);
  };
}

Transform make_by_long(Arguments& arguments) {
  return [size = arguments.get<double>("long_size")](const cv::Mat& image, Geometry& geometry) {
    return resize(image, scaled(image.size(), size / std::max(image.cols, image.rows)), cv::INTER_LINEAR, geometry);
  };
}

Transform make_by_short(Arguments& arguments) {
  const Numbers sizes = arguments.numbers("short_size", {});
  const double most = arguments.find<double>("max_size").value_or(std::numeric_limits<double>::infinity());
  if (sizes.size() != 1) throw InputError(arguments.where() + ": several short_size are drawn at random. Export with one.");
  return [size = sizes[0], most](const cv::Mat& image, Geometry& geometry) {
    const double small = std::min(image.cols, image.rows), large = std::max(image.cols, image.rows);
    const double wanted = size / small * large > most ? std::max(1.0, std::floor(most / large * small)) : size;
    return resize(image, scaled(image.size(), wanted / small), cv::INTER_LINEAR, geometry);
  };
}

Transform make_limit_long(Arguments& arguments) {
  const auto most = arguments.find<double>("max_long"), least = arguments.find<double>("min_long");
  return [=](const cv::Mat& image, Geometry& geometry) {
    const double large = std::max(image.cols, image.rows);
    if (most && large > *most) return resize(image, scaled(image.size(), *most / large), cv::INTER_LINEAR, geometry);
    if (least && large < *least) return resize(image, scaled(image.size(), *least / large), cv::INTER_LINEAR, geometry);
    return image;
  };
}

Transform make_padding(Arguments& arguments) {
  const auto target = arguments.get<std::vector<int>>("target_size");
  const Numbers value = arguments.numbers("im_padding_value", {127.5});
  arguments.find<int>("label_padding_value");
  if (target.size() != 2) throw InputError(arguments.where() + ": target_size is [width, height].");
  return [target, value, where = arguments.where()](const cv::Mat& image, Geometry& geometry) {
    if (image.cols > target[0] || image.rows > target[1]) {
      throw InputError("the image does not fit into Padding (got " + std::to_string(image.cols) + "x" + std::to_string(image.rows) +
                       ", target_size is [" + std::to_string(target[0]) + ", " + std::to_string(target[1]) +
                       "]). Enlarge target_size, or put Resize, ResizeByLong or LimitLong before.");
    }
    return pad(image, {target[0], target[1]}, spread(value, image, where), geometry);
  };
}

Transform make_padding_by_ratio(Arguments& arguments) {
  const double ratio = arguments.find<double>("aspect_ratio").value_or(1);
  const Numbers value = arguments.numbers("im_padding_value", {127.5});
  arguments.find<int>("label_padding_value");
  return [ratio, value, where = arguments.where()](const cv::Mat& image, Geometry& geometry) {
    cv::Size size = image.size();
    if (static_cast<double>(size.width) / size.height > ratio) {
      size.height = std::max(size.height, static_cast<int>(size.width / ratio));
    } else {
      size.width = std::max(size.width, static_cast<int>(size.height * ratio));
    }
    return pad(image, size, spread(value, image, where), geometry);
  };
}

/// float32 (image / 255 - mean) / std.
Transform make_normalize(Arguments& arguments) {
  const Numbers mean = arguments.numbers("mean", {0.5}), std = arguments.numbers("std", {0.5});
  return [mean, std, where = arguments.where()](const cv::Mat& image, Geometry&) {
    const auto channels = static_cast<size_t>(image.channels());
    for (const Numbers* values : {&mean, &std}) {
      if (values->size() != 1 && values->size() != channels) spread(*values, image, where);
    }
    cv::Mat scaled_image;
    image.convertTo(scaled_image, CV_32F);
    for (int row = 0; row < scaled_image.rows; ++row) {
      auto* value = scaled_image.ptr<float>(row);
      for (size_t at = 0; at < channels * static_cast<size_t>(scaled_image.cols); ++at) {
        const size_t band = at % channels;
        const auto centred = static_cast<float>(value[at] / 255.0f - mean[mean.size() == 1 ? 0 : band]);
        value[at] = static_cast<float>(centred / std[std.size() == 1 ? 0 : band]);
      }
    }
    return scaled_image;
  };
}

const std::map<std::string, Transform (*)(Arguments&)> kKinds = {
    {"LimitLong", make_limit_long},   {"Normalize", make_normalize},
    {"Padding", make_padding},        {"PaddingByAspectRatio", make_padding_by_ratio},
    {"Resize", make_resize},          {"ResizeByLong", make_by_long},
    {"ResizeByShort", make_by_short},
};

}  // namespace

std::vector<Transform> build_transforms(const YAML::Node& nodes, const std::string& where) {
  std::vector<Transform> built;
  for (size_t index = 0; index < nodes.size(); ++index) {
    const std::string here = where + ": Deploy.transforms." + std::to_string(index);
    const auto type = nodes[index].IsMap() ? nodes[index]["type"].as<std::string>("") : std::string();
    const auto kind = kKinds.find(type);
    if (kind == kKinds.end()) {
      std::string known;
      for (const auto& item : kKinds) known += (known.empty() ? "" : ", ") + item.first;
      throw InputError(here + ": this program does not know " + (type.empty() ? "a transform without type" : type) +
                       " (expected " + known + "). Use infer.py.");
    }
    Arguments arguments(nodes[index], here + ": " + type);
    built.push_back(kind->second(arguments));
    arguments.refuse_others();
  }
  return built;
}
