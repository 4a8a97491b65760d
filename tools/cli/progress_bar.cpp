#include "tools/cli/progress_bar.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "tools/cli/output.h"

namespace moecast {

ProgressBar::ProgressBar() : drawing_(terminal_allows_colour()) {}

ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::update(const std::string& stage, double done_ratio, Seconds left) {
  if (!drawing_) {
    if (stage != stage_) fmt::print(stderr, "{}\n", stage);
    stage_ = stage;
    return;
  }
  constexpr int kWidth = 30;
  const double ratio = std::clamp(done_ratio, 0.0, 1.0);
  const int filled = static_cast<int>(ratio * kWidth + 0.5);
  fmt::print(stderr, "\r[{:#<{}}{:.<{}}] {:3.0f} %  {:.0f} s left  {}\x1b[K", "", filled, "", kWidth - filled,
             ratio * 100, std::max(0.0, left.value()), stage);
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressBar::clear() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
  drawn_ = false;
}

}  // namespace moecast
