#pragma once

#include <filesystem>
#include <vector>

#include <opencv2/core.hpp>

/// A photo as the toolkit reads it: RGB, RGBA or gray, upright by its EXIF orientation, CV_8U, or CV_32F where the
/// file has more bits. InputError: missing, empty, cut short, damaged, or not of `channels` channels.
cv::Mat read_image(const std::filesystem::path& path, int channels);

/// Write a mask (CV_8U or CV_16U [H, W]) as a palette PNG whose indices are the classes, or as 16-bit gray above 255.
void write_mask(const std::filesystem::path& path, const cv::Mat& mask, const std::vector<cv::Vec3b>& palette);

/// The photos that a path means, with the names of their masks: a file, or a folder with its sub-folders.
struct Photo {
  std::filesystem::path path, name;
};
std::vector<Photo> find_photos(const std::filesystem::path& path, const std::filesystem::path& save_dir);

/// The file of a photo's mask.
std::filesystem::path mask_path(const std::filesystem::path& save_dir, const Photo& photo);

/// InputError where a mask would take the place of one of `photos`.
void check_spared(const std::vector<Photo>& photos, const std::filesystem::path& save_dir);
