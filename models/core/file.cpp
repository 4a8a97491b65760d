#include "models/core/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr std::size_t kMaxLineBytes = std::size_t{1} << 20;

struct GzClose {
  void operator()(gzFile_s* file) const { gzclose(file); }
};
using GzFile = std::unique_ptr<gzFile_s, GzClose>;

[[noreturn]] void refuse_size(const std::string& path, std::uint64_t limit_bytes) {
  throw InputError(path, "is larger than " + std::to_string(limit_bytes >> 20) + " MiB",
                   "this is not a file of the expected kind");
}

GzFile open_for_reading(const std::string& path, std::uint64_t limit_bytes) {
  std::error_code ignored;
  std::error_code reason;
  const auto status = std::filesystem::status(path, reason);
  if (status.type() == std::filesystem::file_type::not_found) throw InputError(path, "no such file", "check the path");
  if (reason) throw InputError(path, "cannot be opened: " + reason.message(), "check the path and its permissions");
  if (std::filesystem::is_directory(status)) {
    throw InputError(path, "is a folder, expected a file", "name a file in it");
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw InputError(path, "is not a regular file", "copy it to a file first");
  }
  // What is too large packed is too large unpacked: refused before a byte is read.
  if (std::filesystem::file_size(path, ignored) > limit_bytes && !ignored) refuse_size(path, limit_bytes);
  GzFile file(gzopen(path.c_str(), "rb"));
  if (!file) {
    throw InputError(path, std::string("cannot be opened: ") + std::strerror(errno), "check its permissions");
  }
  gzbuffer(file.get(), 1U << 18);
  return file;
}

/// Reads once; 0 at the end of the file.
std::size_t read_some(gzFile_s* file, const std::string& path, char* buffer, std::size_t size) {
  const int got = gzread(file, buffer, static_cast<unsigned>(size));
  int code = Z_OK;
  const char* message = gzerror(file, &code);
  if (got < 0 || (got == 0 && code != Z_OK && code != Z_STREAM_END)) {
    throw InputError(path, std::string("cannot be read: ") + (code == Z_ERRNO ? std::strerror(errno) : message),
                     "the file may be truncated; copy it again");
  }
  return static_cast<std::size_t>(got);
}

/// Bytes that zlib is given at a time.
constexpr std::size_t kMostGiven = std::size_t{1} << 30;

std::string gzip(std::string_view content) {
  z_stream stream{};
  if (deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw DeviceError("", "zlib cannot start compression");
  }
  std::string out;
  std::array<char, 1 << 16> chunk;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  std::size_t left = content.size();  // zlib counts what it is given in 32 bits
  int code = Z_OK;
  while (code == Z_OK) {
    if (stream.avail_in == 0) {
      const std::size_t given = std::min(left, kMostGiven);
      stream.avail_in = static_cast<uInt>(given);
      left -= given;
    }
    stream.next_out = reinterpret_cast<Bytef*>(chunk.data());
    stream.avail_out = static_cast<uInt>(chunk.size());
    code = deflate(&stream, left == 0 ? Z_FINISH : Z_NO_FLUSH);
    out.append(chunk.data(), chunk.size() - stream.avail_out);
  }
  deflateEnd(&stream);
  if (code != Z_STREAM_END) throw DeviceError("", "zlib cannot compress");
  return out;
}

[[noreturn]] void refuse_writing(const std::string& path, int reason) {
  throw DeviceError(path, std::string("cannot be written: ") + std::strerror(reason),
                    reason == ENOSPC || reason == EDQUOT ? "free some disk space"
                    : reason == EFBIG                    ? "raise the limit on the size of files (ulimit -f)"
                                                         : "check that the folder exists and is writable");
}

/// Writes all, down to the disk where there is one. @return 0, or why not.
int write_through(const std::string& path, int flags, std::string_view content) {
  const int descriptor = open(path.c_str(), flags | O_WRONLY | O_CLOEXEC, 0644);
  if (descriptor < 0) return errno;
  int reason = 0;
  while (reason == 0 && !content.empty()) {
    const ssize_t written = write(descriptor, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      reason = written < 0 ? errno : EIO;
    } else {
      content.remove_prefix(static_cast<std::size_t>(written));
    }
  }
  // A pipe and a terminal have nothing to flush.
  if (reason == 0 && fsync(descriptor) != 0 && errno != EINVAL && errno != EROFS) reason = errno;
  if (close(descriptor) != 0 && reason == 0) reason = errno;
  return reason;
}

}  // namespace

std::string read_text_file(const std::string& path, std::uint64_t limit_bytes) {
  const GzFile file = open_for_reading(path, limit_bytes);
  std::string text;
  std::array<char, 1U << 16> buffer{};
  while (const std::size_t got = read_some(file.get(), path, buffer.data(), buffer.size())) {
    if (text.size() + got > limit_bytes) refuse_size(path, limit_bytes);
    text.append(buffer.data(), got);
  }
  return text;
}

void read_lines(const std::string& path, const std::function<void(std::uint64_t, std::string_view)>& line) {
  read_lines_while(path, [&](std::uint64_t number, std::string_view text) {
    line(number, text);
    return true;
  });
}

void read_lines_while(const std::string& path, const std::function<bool(std::uint64_t, std::string_view)>& line) {
  const GzFile file = open_for_reading(path, std::numeric_limits<std::uint64_t>::max());
  std::string pending;
  std::uint64_t number = 0;
  const auto emit = [&](std::string_view text) {
    if (number == 0 && text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte-order mark
    if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
    return line(++number, text);
  };
  std::array<char, 1U << 16> buffer{};
  while (const std::size_t got = read_some(file.get(), path, buffer.data(), buffer.size())) {
    std::string_view rest(buffer.data(), got);
    for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
      bool more = false;
      if (pending.empty()) {
        more = emit(rest.substr(0, end));
      } else {
        pending.append(rest.substr(0, end));
        more = emit(pending);
        pending.clear();
      }
      if (!more) return;
      rest.remove_prefix(end + 1);
    }
    pending.append(rest);
    if (pending.size() > kMaxLineBytes) {
      throw InputError(path + ": line " + std::to_string(number + 1), "is longer than 1 MiB",
                       "this is not a file of the expected kind");
    }
  }
  if (!pending.empty()) static_cast<void>(emit(pending));
}

void write_file_atomically(const std::string& path, std::string_view content) {
  std::string compressed;
  if (path.ends_with(".gz")) {
    compressed = gzip(content);
    content = compressed;
  }
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  if (fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status)) {
    // A device or a pipe takes what is written into it; a file in its place would end it for everybody.
    if (const int reason = write_through(path, 0, content); reason != 0) refuse_writing(path, reason);
    return;
  }
  // A link stays one: what it points to is replaced.
  const fs::path found = fs::is_regular_file(status) ? fs::canonical(path, ignored) : fs::path();
  const std::string target = found.empty() ? path : found.string();
  const std::string temporary = target + ".tmp" + std::to_string(getpid());
  int reason = write_through(temporary, O_CREAT | O_TRUNC, content);
  if (reason == 0 && rename(temporary.c_str(), target.c_str()) != 0) reason = errno;
  if (reason == 0) return;
  unlink(temporary.c_str());
  refuse_writing(path, reason);
}

}  // namespace moecast
