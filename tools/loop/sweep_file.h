#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "models/core/json.h"

namespace moecast {

/// A file of rows that takes long to make: rows go to FILE.part, which becomes FILE when all are there. Beside it
/// FILE.part.json says what they answer, so that a run that was killed goes on after the last complete row.
class SweepFile {
 public:
  /// Opens FILE.part, drops a row that was cut off, and goes on behind the rows that are there.
  ///
  /// @param question  all that the rows depend on, an object; another one than the unfinished file's is refused.
  /// @param header    first line with its end; empty = none.
  /// @param anew      forgets what is unfinished, and replaces FILE.
  /// @throws UsageError when FILE is there already or is no regular file, or another program is writing it; InputError
  ///         when FILE.part answers another question; DeviceError when it cannot be written.
  SweepFile(std::string path, const Json& question, const std::string& header, bool anew);
  ~SweepFile();
  SweepFile(const SweepFile&) = delete;
  SweepFile& operator=(const SweepFile&) = delete;

  [[nodiscard]] const std::string& part() const { return part_; }
  /// Complete rows that were there when it was opened.
  [[nodiscard]] std::size_t kept_rows() const { return kept_rows_; }
  /// The last of them, with its end of line; empty when there is none.
  [[nodiscard]] const std::string& last_row() const { return last_row_; }
  /// @throws DeviceError when the disk is full; what was written before stays.
  void append(std::string_view rows);
  /// FILE.part.json, which says what the rows answer.
  [[nodiscard]] const std::string& question() const { return question_path_; }
  /// Makes FILE of FILE.part. @throws DeviceError
  void finish();
  /// The same where FILE has another form: `make` writes it of FILE.part. What it throws leaves all rows where they
  /// are.
  void finish(const std::function<void()>& make);

 private:
  void check_question(const Json& question) const;
  void sync() const;
  void keep_complete_rows(const std::string& header);

  std::string path_;
  std::string part_;
  std::string question_path_;
  int descriptor_ = -1;
  std::size_t kept_rows_ = 0;
  std::string last_row_;
};

}  // namespace moecast
