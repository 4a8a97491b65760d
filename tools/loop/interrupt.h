#pragma once
#include <atomic>

namespace moecast {

/// While it lives, the first SIGINT or SIGTERM raises `flag` instead of ending the program; a second one ends it.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  [[nodiscard]] static const std::atomic<bool>& flag();
};

}  // namespace moecast
