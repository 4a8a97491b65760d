#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace moecast {

/// Largest configuration or profile that is read whole (64 MiB).
inline constexpr std::uint64_t kMaxTextFileBytes = std::uint64_t{64} << 20;

/// Whole file, gunzipped where it is gzip.
/// @throws InputError if it is missing, a folder, not readable, truncated gzip, or larger (unpacked) than
/// `limit_bytes`.
std::string read_text_file(const std::string& path, std::uint64_t limit_bytes = kMaxTextFileBytes);

/// Calls `line` for each line without its end (number from 1); memory stays bounded. gzip is recognised.
/// @throws InputError as above, and on a line above 1 MiB.
void read_lines(const std::string& path, const std::function<void(std::uint64_t number, std::string_view line)>& line);
/// The same until `line` says false.
void read_lines_while(const std::string& path,
                      const std::function<bool(std::uint64_t number, std::string_view line)>& line);

/// Writes a temporary file beside `path`, syncs it and renames it: a reader sees the old content or the new one.
/// A path that ends in ".gz" is compressed (no time stamp inside: equal content gives equal bytes).
/// @throws DeviceError if the disk is full or the folder not writable; the old file is then untouched.
void write_file_atomically(const std::string& path, std::string_view content);

}  // namespace moecast
