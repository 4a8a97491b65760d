#pragma once
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <thread>

namespace moecast {

/// While it lives, the first SIGINT or SIGTERM raises `flag` instead of ending the program; a second one, half a second
/// later or more, ends it.
///
/// The signals are blocked in the thread that makes the guard and in those it starts afterwards; a thread of the
/// guard's own takes them. A handler must not run on a thread that computes: the AVX2 and AVX-512 GEMM kernels of
/// oneDNN before 3.12 keep their workspace in the stack pointer, and a handler's frame would be written over the heap
/// below it (uxlfoundation/oneDNN issue 4845).
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  [[nodiscard]] static const std::atomic<bool>& flag();

 private:
  void wait_for_end();

  sigset_t before_{};
  std::mutex mutex_;
  std::condition_variable ended_;
  bool end_ = false;
  std::thread taker_;
};

}  // namespace moecast
