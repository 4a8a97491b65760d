#pragma once
#include <stdexcept>
#include <string>

namespace moecast {

/// The caller's or a file's fault: says where, what is wrong, and how to mend it.
///
/// `where` is a file with a JSON pointer ("hw.json: /memory/unit"), a row, a flag or empty; `hint` may be empty.
class Error : public std::runtime_error {
 public:
  Error(std::string where, std::string what, std::string hint = {});
  [[nodiscard]] const std::string& where() const { return where_; }
  [[nodiscard]] const std::string& problem() const { return problem_; }
  [[nodiscard]] const std::string& hint() const { return hint_; }

 private:
  std::string where_;
  std::string problem_;
  std::string hint_;
};

/// A file, or text that came out of one, cannot be used. Exit code 3.
class InputError : public Error {
  using Error::Error;
};

/// A flag or argument is wrong, or contradicts another. Exit code 2.
class UsageError : public Error {
  using Error::Error;
};

/// Something that the machine lacks or refuses (no GPU, full disk, missing library). Exit code 4.
class DeviceError : public Error {
  using Error::Error;
};

}  // namespace moecast
