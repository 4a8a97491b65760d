#include "tools/loop/sweep_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

constexpr const char* kAnew = "--force starts anew; or choose another -o";
constexpr std::size_t kChunk = std::size_t{1} << 20;

[[noreturn]] void refuse_device(const std::string& path, const char* what) {
  const int reason = errno;
  throw DeviceError(path, fmt::format("{}: {}", what, std::strerror(reason)),
                    reason == ENOSPC ? "free some disk space, then run the same command again" : "");
}

std::string value_text(const Json& question, const std::string& key) {
  if (!question.contains(key)) return "nothing";
  const Json& value = question.at(key);
  return value.is_string() ? value.get<std::string>() : dump_json_line(value);
}

/// Where complete rows end: behind the last end of line.
struct Lines {
  std::size_t count = 0;
  std::uint64_t end = 0;         ///< behind the last line
  std::uint64_t last_begin = 0;  ///< of the last line
};

Lines scan(int descriptor, const std::string& path) {
  Lines lines;
  std::vector<char> chunk(kChunk);
  std::uint64_t offset = 0;
  while (true) {
    const ssize_t got = pread(descriptor, chunk.data(), chunk.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse_device(path, "cannot be read");
    if (got == 0) return lines;
    const char* const end = chunk.data() + got;
    for (const char* at = chunk.data(); (at = std::find(at, static_cast<const char*>(end), '\n')) != end; ++at) {
      ++lines.count;
      lines.last_begin = lines.end;
      lines.end = offset + static_cast<std::uint64_t>(at - chunk.data()) + 1;
    }
    offset += static_cast<std::uint64_t>(got);
  }
}

std::string read_piece(int descriptor, const std::string& path, std::uint64_t begin, std::uint64_t end) {
  std::string text(static_cast<std::size_t>(end - begin), '\0');
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t got = pread(descriptor, text.data() + done, text.size() - done, static_cast<off_t>(begin + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) refuse_device(path, "cannot be read");
    done += static_cast<std::size_t>(got);
  }
  return text;
}

void refuse_target(const std::string& path, bool anew) {
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  if (!fs::exists(status)) return;
  if (!fs::is_regular_file(status)) throw UsageError(path, "is there and is no file", "choose another -o");
  if (!anew) throw UsageError(path, "is there already", "choose another -o, or --force replaces it");
}

}  // namespace

SweepFile::SweepFile(std::string path, const Json& question, const std::string& header, bool anew)
    : path_(std::move(path)), part_(path_ + ".part"), question_path_(part_ + ".json") {
  refuse_target(path_, anew);
  std::error_code ignored;
  if (fs::is_directory(part_, ignored)) throw UsageError(part_, "is a folder", "choose another -o");
  descriptor_ = open(part_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) refuse_device(part_, "cannot be written");
  try {
    if (flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      throw UsageError(part_, "is being written by another sweep", "wait for it, or choose another -o");
    }
    if (anew && ftruncate(descriptor_, 0) != 0) refuse_device(part_, "cannot be emptied");
    if (!anew) check_question(question);
    write_file_atomically(question_path_, dump_json(question));
    keep_complete_rows(header);
  } catch (...) {
    close(descriptor_);
    throw;
  }
}

SweepFile::~SweepFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

void SweepFile::check_question(const Json& question) const {
  std::error_code ignored;
  const bool empty = fs::file_size(part_, ignored) == 0;
  if (!fs::exists(question_path_, ignored)) {
    if (empty) return;
    throw InputError(part_, fmt::format("has no {} that says what it answers", question_path_), kAnew);
  }
  const Json known = read_json_file(question_path_);
  if (known == question || empty) return;
  if (!known.is_object()) throw InputError(question_path_, "is no object", kAnew);
  for (const Json* one : {&known, &question}) {
    for (const auto& [key, value] : one->items()) {
      if (known.contains(key) && question.contains(key) && known.at(key) == question.at(key)) continue;
      throw InputError(part_,
                       fmt::format("was begun with other flags: {} was {}, now it is {}", key, value_text(known, key),
                                   value_text(question, key)),
                       fmt::format("the same flags go on from there; {}", kAnew));
    }
  }
}

void SweepFile::keep_complete_rows(const std::string& header) {
  Lines lines = scan(descriptor_, part_);
  if (!header.empty() && lines.count > 0 &&
      (lines.end < header.size() || read_piece(descriptor_, part_, 0, header.size()) != header)) {
    throw InputError(part_, "has other columns than these flags give", kAnew);
  }
  if (ftruncate(descriptor_, static_cast<off_t>(lines.end)) != 0) refuse_device(part_, "cannot be written");
  if (lseek(descriptor_, 0, SEEK_END) < 0) refuse_device(part_, "cannot be written");
  const std::size_t header_lines = header.empty() ? 0 : 1;
  if (lines.count < header_lines) {
    append(header);
  } else {
    kept_rows_ = lines.count - header_lines;
  }
  if (kept_rows_ > 0) last_row_ = read_piece(descriptor_, part_, lines.last_begin, lines.end);
}

void SweepFile::append(std::string_view rows) {
  while (!rows.empty()) {
    const ssize_t written = ::write(descriptor_, rows.data(), rows.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) refuse_device(part_, "cannot be written");
    rows.remove_prefix(static_cast<std::size_t>(written));
  }
}

void SweepFile::sync() const {
  if (fsync(descriptor_) != 0) refuse_device(part_, "cannot be written");
}

void SweepFile::finish(const std::function<void()>& make) {
  sync();
  make();
  std::error_code ignored;
  fs::remove(part_, ignored);
  fs::remove(question_path_, ignored);
}

void SweepFile::finish() {
  sync();
  std::error_code error;
  fs::rename(part_, path_, error);
  if (error) throw DeviceError(path_, "cannot be written: " + error.message());
  fs::remove(question_path_, error);
}

}  // namespace moecast
