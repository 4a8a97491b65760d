#include "tools/loop/sweep.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <stdexcept>

namespace moecast {
namespace {

std::string numbers(std::size_t begin, std::size_t end) {
  std::string text;
  for (std::size_t i = begin; i < end; ++i) text += std::to_string(i) + "\n";
  return text;
}

class RunSweep : public testing::Test {
 protected:
  Sweep sweep(std::size_t points, int threads) {
    Sweep one;
    one.points = points;
    one.threads = threads;
    one.rows = numbers;
    one.write = [this](std::string_view rows) { written_ += rows; };
    return one;
  }
  std::string written_;
  std::atomic<bool> stop_{false};
};

TEST_F(RunSweep, WritesEveryRowOnceAndInOrder) {
  for (const int threads : {1, 2, 7}) {
    for (const std::size_t points : {0U, 1U, 63U, 64U, 65U, 5'000U}) {
      written_.clear();
      EXPECT_EQ(run_sweep(sweep(points, threads), stop_), points);
      EXPECT_EQ(written_, numbers(0, points)) << points << " points on " << threads << " threads";
    }
  }
}

TEST_F(RunSweep, BeginsWhereItIsTold) {
  Sweep rest = sweep(1'000, 2);
  rest.first = 777;
  EXPECT_EQ(run_sweep(rest, stop_), 1'000U);
  EXPECT_EQ(written_, numbers(777, 1'000));
  written_.clear();
  rest.first = 1'000;
  EXPECT_EQ(run_sweep(rest, stop_), 1'000U);
  EXPECT_EQ(written_, "");
}

TEST_F(RunSweep, StopsBetweenBlocksAndSaysHowManyAreDone) {
  Sweep stopped = sweep(1'000'000, 2);
  stopped.write = [this](std::string_view rows) {
    written_ += rows;
    if (std::ranges::count(written_, '\n') >= 640) stop_ = true;
  };
  const std::size_t done = run_sweep(stopped, stop_);
  EXPECT_EQ(done, 640U);
  EXPECT_EQ(written_, numbers(0, done));
}

TEST_F(RunSweep, StaysNearWhatIsWritten) {
  std::mutex mutex;
  std::size_t furthest = 0;
  std::size_t done = 0;
  Sweep watched = sweep(100'000, 2);
  watched.rows = [&](std::size_t begin, std::size_t end) {
    const std::lock_guard lock(mutex);
    furthest = std::max(furthest, end - done);
    return numbers(begin, end);
  };
  watched.write = [&](std::string_view rows) {
    const std::lock_guard lock(mutex);
    done += static_cast<std::size_t>(std::ranges::count(rows, '\n'));
  };
  EXPECT_EQ(run_sweep(watched, stop_), 100'000U);
  EXPECT_LE(furthest, 2'000U) << "memory does not grow with the points";
}

TEST_F(RunSweep, HandsOnWhatRowsAndWriteThrow) {
  Sweep broken = sweep(10'000, 2);
  broken.rows = [](std::size_t begin, std::size_t end) {
    if (begin > 2'000) throw std::runtime_error("rows");
    return numbers(begin, end);
  };
  EXPECT_THROW(run_sweep(broken, stop_), std::runtime_error);
  EXPECT_TRUE(numbers(0, 10'000).starts_with(written_));
  Sweep full = sweep(10'000, 2);
  full.write = [](std::string_view) { throw std::logic_error("full"); };
  EXPECT_THROW(run_sweep(full, stop_), std::logic_error);
}

}  // namespace
}  // namespace moecast
