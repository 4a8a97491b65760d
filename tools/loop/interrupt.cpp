#include "tools/loop/interrupt.h"

#include <csignal>

namespace moecast {
namespace {

// A signal handler has no arguments of its own: the one flag that has to be global.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int signal) {
  interrupted.store(true);
  std::signal(signal, SIG_DFL);
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
