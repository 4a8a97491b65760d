#pragma once
#include <string>

#include "models/core/units.h"

namespace moecast {

/// One line on standard error that is redrawn: "[####......]  40 %  35 s left  measuring". On a terminal only;
/// elsewhere it prints a line whenever the stage changes.
class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void update(const std::string& stage, double done_ratio, Seconds left);
  /// Removes the line, so that other text can be printed.
  void clear();

 private:
  bool drawing_;
  bool drawn_ = false;
  std::string stage_;
};

}  // namespace moecast
