#include "tools/loop/interrupt.h"

#include <time.h>

#include <csignal>

namespace moecast {
namespace {

// A signal handler has no arguments of its own: the one flag that has to be global.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

std::atomic<std::int64_t> first_ns{0};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);
/// `timeout` and terminals signal a process and then its group: what comes so soon after the first is the same request.
constexpr std::int64_t kSameRequestNs = 500'000'000;

std::int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);  // may be called here, unlike the clocks of <chrono>
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void on_signal(int signal) {
  if (!interrupted.exchange(true)) {
    first_ns.store(now_ns());
    return;
  }
  if (now_ns() - first_ns.load() < kSameRequestNs) return;
  std::signal(signal, SIG_DFL);
  static_cast<void>(raise(signal));
}

sigset_t taken_signals() {
  sigset_t signals{};
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

InterruptGuard::InterruptGuard() {
  interrupted.store(false);
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  const sigset_t signals = taken_signals();
  pthread_sigmask(SIG_BLOCK, &signals, &before_);
  taker_ = std::thread([this] { wait_for_end(); });
}

InterruptGuard::~InterruptGuard() {
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  ended_.notify_one();
  taker_.join();
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

/// Sleeps where signals may arrive.
void InterruptGuard::wait_for_end() {
  const sigset_t signals = taken_signals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return end_; });
}

const std::atomic<bool>& InterruptGuard::flag() { return interrupted; }

}  // namespace moecast
