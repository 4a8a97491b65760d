#pragma once
#include <array>
#include <cstddef>
#include <string_view>

namespace moecast {

/// Text of an error in room of its own: saying that memory is short takes none. What does not fit is cut.
class ErrorText {
 public:
  /// "what (hint)". Flags of the command line are written as the fields of moecast.h: "--top-k" as "top_k".
  void say(std::string_view what, std::string_view hint) noexcept { say(what, "", hint); }
  void say(std::string_view what, std::string_view more, std::string_view hint) noexcept;
  [[nodiscard]] const char* text() const noexcept { return text_.data(); }

 private:
  void add(std::string_view part) noexcept;

  std::array<char, 2048> text_{};
  std::size_t size_ = 0;
};

}  // namespace moecast
