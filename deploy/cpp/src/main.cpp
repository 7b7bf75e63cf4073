// segkit_infer: write the masks of photos with an exported model, as deploy/python/infer.py does.
#include <chrono>
#include <cstring>
#include <iostream>
#include <map>

#include "error.hpp"
#include "image.hpp"
#include "network.hpp"

namespace {

constexpr const char* kUsage =
    "segkit_infer --config DIR/deploy.yaml --image_path PHOTO_OR_FOLDER [--save_dir output/infer] [--cpu_threads N]\n"
    "             [--precision fp32|bf16]\n"
    "Writes SAVE_DIR/<name>.png for every photo: a palette PNG whose indices are the classes, at the photo's size.\n";

using Flags = std::map<std::string, std::string>;

Flags parse(int count, char** words) {
  Flags flags = {{"config", ""}, {"image_path", ""}, {"save_dir", "output/infer"}, {"cpu_threads", "0"}, {"precision", "fp32"}};
  for (int at = 1; at < count; at += 2) {
    const std::string word = words[at];
    const auto flag = word.rfind("--", 0) == 0 ? flags.find(word.substr(2)) : flags.end();
    if (flag == flags.end()) throw InputError(word + ": there is no such flag.\n" + kUsage);
    if (at + 1 == count) throw InputError(word + ": its value is missing.\n" + kUsage);
    flag->second = words[at + 1];
  }
  for (const char* needed : {"config", "image_path"}) {
    if (flags[needed].empty()) throw InputError(std::string("--") + needed + " is missing.\n" + kUsage);
  }
  if (flags["precision"] != "fp32" && flags["precision"] != "bf16") {
    throw InputError("--precision: got " + flags["precision"] + ", expected fp32 or bf16.");
  }
  return flags;
}

int threads_of(const std::string& text) {
  if (text.empty() || text.size() > 4 || text.find_first_not_of("0123456789") != std::string::npos) {
    throw InputError("--cpu_threads: got " + text + ", expected a whole number, 0 for OpenVINO's choice.");
  }
  return std::stoi(text);
}

/// Segment all photos; those that cannot be read do not stop the others and are named at the end.
void run(const Flags& flags) {
  const DeploySpec spec = DeploySpec::load(flags.at("config"));
  const std::filesystem::path folder = flags.at("save_dir");
  const auto photos = find_photos(flags.at("image_path"), folder);
  check_spared(photos, folder);
  Network network(spec, threads_of(flags.at("cpu_threads")), flags.at("precision"));
  std::string failed;
  size_t done = 0;
  double seconds = 0;
  for (const Photo& photo : photos) {
    try {
      const cv::Mat image = read_image(photo.path, spec.channels);
      const auto start = std::chrono::steady_clock::now();
      const cv::Mat mask = network.segment(image);
      seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      write_mask(mask_path(folder, photo), mask, spec.palette);
      ++done;
    } catch (const std::exception& error) {
      const std::string text = error.what(), path = photo.path.string();
      failed += "\n  " + (text.rfind(path, 0) == 0 ? text : path + ": " + text);
    }
  }
  if (done > 0) {
    std::cout << done << " masks are in " << folder.string() << " (" << 1000 * seconds / static_cast<double>(done)
              << " ms a photo without reading and writing)\n";
  }
  if (!failed.empty()) {
    throw InputError(std::to_string(photos.size() - done) + " of " + std::to_string(photos.size()) +
                     " photos could not be segmented, the others are done:" + failed);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count == 2 && std::strcmp(words[1], "--help") == 0) {
    std::cout << kUsage;
    return 0;
  }
  try {
    run(parse(count, words));
  } catch (const InputError& error) {
    std::cerr << error.what() << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "segkit_infer failed: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
