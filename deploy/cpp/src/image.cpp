#include "image.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <set>

#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "error.hpp"

namespace fs = std::filesystem;

namespace {

using Bytes = std::vector<uchar>;

const std::array<const char*, 7> kSuffixes = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"};

Bytes read_bytes(const fs::path& path) {
  if (!fs::exists(path)) throw InputError(path.string() + ": no such file. Mend the path, or the list that names it.");
  std::ifstream file(path, std::ios::binary);
  if (!file || fs::is_directory(path)) {
    throw InputError(path.string() + ": cannot be read. Mend the path or the access rights.");
  }
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

/// OpenCV fills the lost part of a cut file with gray. The end mark of a JPEG stands after the last start of pixels.
bool is_cut(const Bytes& data) {
  const auto last = [&](std::initializer_list<uchar> mark) {
    return std::distance(data.begin(), std::find_end(data.begin(), data.end(), mark.begin(), mark.end()));
  };
  const auto none = static_cast<std::ptrdiff_t>(data.size());
  if (data[0] == 0xFF && data.size() > 1 && data[1] == 0xD8) {
    const auto end = last({0xFF, 0xD9}), pixels = last({0xFF, 0xDA});
    return end == none || (pixels != none && end < pixels);
  }
  return data[0] == 0x89 && data.size() > 1 && data[1] == 'P' && last({'I', 'E', 'N', 'D'}) == none;
}

InputError wrong_bands(const fs::path& path, int found, int channels) {
  return InputError(path.string() + ": wrong number of bands (got " + std::to_string(found) + ", expected img_channels: " +
                    std::to_string(channels) + "). Convert the image.");
}

/// BGR(A) or gray to what the network sees: gray repeated, colour to gray, alpha dropped.
cv::Mat fit_channels(const cv::Mat& image, int channels, const fs::path& path) {
  const int found = image.channels();
  cv::Mat fitted;
  if (found == channels) {
    fitted = image;
    if (found == 3) cv::cvtColor(image, fitted, cv::COLOR_BGR2RGB);
    if (found == 4) cv::cvtColor(image, fitted, cv::COLOR_BGRA2RGBA);
  } else if (found == 1 && channels == 3) {
    cv::cvtColor(image, fitted, cv::COLOR_GRAY2RGB);
  } else if (found == 4 && channels == 3) {
    cv::cvtColor(image, fitted, cv::COLOR_BGRA2RGB);
  } else if (found == 3 && channels == 1) {
    cv::cvtColor(image, fitted, cv::COLOR_BGR2GRAY);
  } else {
    throw wrong_bands(path, found, channels);
  }
  return fitted;
}

uint32_t crc32(const uchar* data, size_t size) {
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t at = 0; at < size; ++at) {
    crc ^= data[at];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

void append_number(Bytes& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<uchar>(value >> shift));
}

/// A gray PNG of OpenCV's, which writes no palettes, made one: its pixels are stored alike (PNG specification, 11.2).
Bytes with_palette(const Bytes& gray, const std::vector<cv::Vec3b>& palette) {
  constexpr size_t kHeader = 8, kKind = kHeader + 4, kColourType = kKind + 4 + 9, kCrc = kKind + 4 + 13;
  Bytes header(gray.begin(), gray.begin() + kCrc);
  header[kColourType] = 3;
  append_number(header, crc32(header.data() + kKind, kCrc - kKind));
  Bytes colours = {'P', 'L', 'T', 'E'};
  for (size_t number = 0; number < 256; ++number) colours.insert(colours.end(), palette[number].val, palette[number].val + 3);
  append_number(header, static_cast<uint32_t>(colours.size() - 4));
  const uint32_t crc = crc32(colours.data(), colours.size());
  append_number(colours, crc);
  header.insert(header.end(), colours.begin(), colours.end());
  header.insert(header.end(), gray.begin() + kCrc + 4, gray.end());
  return header;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char sign) { return std::tolower(sign); });
  return text;
}

/// Names that do not collide, also where the file system ignores case: those that infer.py gives.
void name_apart(std::vector<Photo>& photos) {
  std::set<std::string> taken;
  for (Photo& photo : photos) {
    const std::string stem = photo.name.string(), suffix = photo.path.extension().string().substr(1);
    std::string name = stem;
    for (int count = 1; !taken.insert(lower(name)).second; ++count) {
      name = stem + "_" + suffix + (count == 1 ? "" : "_" + std::to_string(count));
    }
    photo.name = name;
  }
}

bool is_photo(const fs::path& path) {
  if (path.filename().string().front() == '.') return false;
  const std::string suffix = lower(path.extension().string());
  return std::find(kSuffixes.begin(), kSuffixes.end(), suffix) != kSuffixes.end();
}

}  // namespace

cv::Mat read_image(const fs::path& path, int channels) {
  const Bytes data = read_bytes(path);
  if (data.empty()) throw InputError(path.string() + ": the file is empty (0 bytes). Copy it again or take it off the list.");
  const int colour = channels == 1 ? cv::IMREAD_GRAYSCALE : cv::IMREAD_COLOR;
  cv::Mat image;
  try {
    image = cv::imdecode(data, channels <= 3 ? colour | cv::IMREAD_ANYDEPTH : cv::IMREAD_UNCHANGED);
  } catch (const cv::Exception&) {  // some decoders raise instead of returning nothing
  }
  if (image.empty() || is_cut(data)) {
    throw InputError(path.string() + ": not a readable image (got " + std::to_string(data.size()) +
                     " bytes, expected JPEG, PNG, BMP, WebP, TIFF). It is damaged, cut short or of another format: copy or convert it again.");
  }
  image = fit_channels(image, channels, path);
  if (image.depth() != CV_8U) image.convertTo(image, CV_32F);
  return image;
}

void write_mask(const fs::path& path, const cv::Mat& mask, const std::vector<cv::Vec3b>& palette) {
  std::error_code failed;
  fs::create_directories(path.parent_path(), failed);
  Bytes png;
  cv::imencode(".png", mask, png);
  if (mask.depth() == CV_8U) png = with_palette(png, palette);
  const fs::path part = path.string() + ".part";
  std::ofstream file(part, std::ios::binary);
  file.write(reinterpret_cast<const char*>(png.data()), static_cast<std::streamsize>(png.size()));
  file.close();
  if (file) fs::rename(part, path, failed);
  if (!file || failed) throw InputError(path.string() + ": cannot be written. Make it writable or choose another folder.");
}

std::vector<Photo> find_photos(const fs::path& path, const fs::path& save_dir) {
  if (fs::is_regular_file(path)) return {{path, path.stem()}};
  if (!fs::is_directory(path)) {
    throw InputError(path.string() + ": there is no such file or folder (working directory: " + fs::current_path().string() +
                     "). Mend --image_path.");
  }
  std::vector<Photo> photos;
  const fs::path results = fs::weakly_canonical(save_dir);
  fs::recursive_directory_iterator entries(path), end;
  for (; entries != end; ++entries) {
    if (entries->is_directory() && fs::weakly_canonical(entries->path()) == results) {
      entries.disable_recursion_pending();
    } else if (entries->is_regular_file() && is_photo(entries->path())) {
      photos.push_back({entries->path(), fs::relative(entries->path(), path).replace_extension()});
    }
  }
  if (photos.empty()) throw InputError(path.string() + ": there is no photo in this folder.");
  std::sort(photos.begin(), photos.end(), [](const Photo& a, const Photo& b) { return a.path < b.path; });
  name_apart(photos);
  return photos;
}

fs::path mask_path(const fs::path& save_dir, const Photo& photo) { return save_dir / (photo.name.string() + ".png"); }

void check_spared(const std::vector<Photo>& photos, const fs::path& save_dir) {
  std::set<fs::path> inputs;
  for (const Photo& photo : photos) inputs.insert(fs::weakly_canonical(photo.path));
  for (const Photo& photo : photos) {
    const fs::path mask = fs::weakly_canonical(mask_path(save_dir, photo));
    if (inputs.count(mask) > 0) {
      throw InputError(mask.string() + ": the mask of " + photo.path.string() +
                       " would overwrite this photo. Choose another --save_dir.");
    }
  }
}
