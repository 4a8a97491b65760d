#include "tools/loop/sweep.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "models/core/error.h"

namespace moecast {
namespace {

/// Points that a thread takes at a time: enough that handing them over costs nothing, few enough to stop soon.
constexpr std::size_t kBlock = 64;
/// Blocks that may wait to be written, for each thread.
constexpr std::size_t kAhead = 8;
constexpr auto kLook = std::chrono::milliseconds(100);

class Workers {
 public:
  Workers(const Sweep& sweep, const std::atomic<bool>& stop) : sweep_(sweep), stop_(stop) {
    blocks_ = (sweep.points - std::min(sweep.first, sweep.points) + kBlock - 1) / kBlock;
    const auto wanted = static_cast<std::size_t>(std::max(sweep.threads, 1));
    ahead_ = kAhead * wanted;
    for (std::size_t i = 0; i < std::min(wanted, blocks_); ++i) {
      try {
        threads_.emplace_back([this] { work(); });
      } catch (const std::system_error& error) {  // a limit on processes: fewer do it too
        if (threads_.empty()) throw DeviceError("", std::string("no thread can be started: ") + error.what());
        break;
      }
    }
  }
  ~Workers() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    room_.notify_all();
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  [[nodiscard]] std::size_t blocks() const { return blocks_; }
  [[nodiscard]] std::size_t begin_of(std::size_t block) const {
    return std::min(sweep_.first + block * kBlock, sweep_.points);
  }

  /// Rows of the next block in the order of the points; nullopt when stopped. Looks up now and then: `waiting`.
  std::optional<std::string> next(const std::function<void()>& waiting) {
    std::unique_lock lock(mutex_);
    while (!ready_.contains(written_)) {
      if (stop_.load()) return std::nullopt;
      if (failure_) std::rethrow_exception(failure_);
      ready_changed_.wait_for(lock, kLook);
      lock.unlock();
      waiting();
      lock.lock();
    }
    if (stop_.load()) return std::nullopt;
    auto node = ready_.extract(written_);
    ++written_;
    lock.unlock();
    room_.notify_all();
    return std::move(node.mapped());
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      room_.wait(lock, [this] { return over_ || failure_ || taken_ < written_ + ahead_; });
      if (over_ || failure_ || stop_.load() || taken_ == blocks_) return;
      const std::size_t block = taken_++;
      lock.unlock();
      std::string rows;
      std::exception_ptr failure;
      try {
        rows = sweep_.rows(begin_of(block), begin_of(block + 1));
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      if (failure) {
        if (!failure_) failure_ = failure;
        room_.notify_all();
      } else {
        ready_[block] = std::move(rows);
      }
      ready_changed_.notify_one();
    }
  }

  const Sweep& sweep_;
  const std::atomic<bool>& stop_;
  std::size_t blocks_ = 0;
  std::size_t ahead_ = 0;
  std::mutex mutex_;
  std::condition_variable room_;
  std::condition_variable ready_changed_;
  std::map<std::size_t, std::string> ready_;
  std::size_t taken_ = 0;
  std::size_t written_ = 0;
  std::exception_ptr failure_;
  bool over_ = false;
  std::vector<std::jthread> threads_;  // last: they end before what they use
};

}  // namespace

std::size_t run_sweep(const Sweep& sweep, const std::atomic<bool>& stop) {
  Workers workers(sweep, stop);
  for (std::size_t block = 0; block < workers.blocks(); ++block) {
    const std::size_t done = workers.begin_of(block);
    const std::optional<std::string> rows = workers.next([&] { sweep.progress(done); });
    if (!rows) return done;
    sweep.write(*rows);
    sweep.progress(workers.begin_of(block + 1));
  }
  return sweep.points;
}

}  // namespace moecast
