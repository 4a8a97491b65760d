#include "tools/c/error_text.h"

namespace moecast {
namespace {

bool is_letter(char c) { return c >= 'a' && c <= 'z'; }

}  // namespace

void ErrorText::say(std::string_view what, std::string_view more, std::string_view hint) noexcept {
  size_ = 0;
  add(what);
  add(more);
  if (!hint.empty()) {
    add(" (");
    add(hint);
    add(")");
  }
  text_[size_] = '\0';
}

void ErrorText::add(std::string_view part) noexcept {
  bool flag = false;
  for (std::size_t i = 0; i < part.size() && size_ + 1 < text_.size(); ++i) {
    const bool begins = part.substr(i).starts_with("--") && i + 2 < part.size() && is_letter(part[i + 2]) &&
                        (i == 0 || part[i - 1] == ' ' || part[i - 1] == '"' || part[i - 1] == '(');
    if (begins) {
      flag = true;
      ++i;
      continue;
    }
    if (!is_letter(part[i]) && part[i] != '-') flag = false;
    text_[size_++] = flag && part[i] == '-' ? '_' : part[i];
  }
}

}  // namespace moecast
