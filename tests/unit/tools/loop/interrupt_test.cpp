#include "tools/loop/interrupt.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

namespace moecast {
namespace {

bool blocks(int signal) {
  sigset_t now{};
  pthread_sigmask(SIG_BLOCK, nullptr, &now);
  return sigismember(&now, signal) == 1;
}

bool raised_soon() {
  for (int i = 0; i < 2000 && !InterruptGuard::flag().load(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return InterruptGuard::flag().load();
}

TEST(InterruptGuard, TakesSignalsOffTheThreadsThatCompute) {
  ASSERT_FALSE(blocks(SIGINT));
  {
    const InterruptGuard guard;
    EXPECT_FALSE(InterruptGuard::flag().load());
    EXPECT_TRUE(blocks(SIGINT));
    EXPECT_TRUE(blocks(SIGTERM));
    std::thread([] { EXPECT_TRUE(blocks(SIGINT)); }).join();
    kill(getpid(), SIGINT);
    EXPECT_TRUE(raised_soon());
  }
  EXPECT_FALSE(blocks(SIGINT));
  EXPECT_FALSE(blocks(SIGTERM));
}

TEST(InterruptGuardDeathTest, ASecondSignalEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const InterruptGuard guard;
        kill(getpid(), SIGINT);
        static_cast<void>(raised_soon());
        std::this_thread::sleep_for(std::chrono::milliseconds(600));
        kill(getpid(), SIGINT);
        std::this_thread::sleep_for(std::chrono::seconds(5));
      },
      ::testing::KilledBySignal(SIGINT), "");
}

TEST(InterruptGuardDeathTest, TheSameSignalTwiceAtOnceIsOneRequest) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const InterruptGuard guard;
        kill(getpid(), SIGINT);
        static_cast<void>(raised_soon());
        kill(getpid(), SIGINT);  // as `timeout` does, to the process and to its group
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        std::_Exit(7);
      },
      ::testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace moecast
