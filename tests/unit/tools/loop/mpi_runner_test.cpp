// Launchers that misbehave, are interrupted or lose their owner: nothing of them is left.
#include "tools/loop/mpi_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "models/core/error.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// Long enough for a loaded machine.
constexpr auto kPatience = std::chrono::seconds(30);

bool comes_true(const std::function<bool()>& what) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!what()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

class MpiRunner : public testing::Test {
 protected:
  MpiRunner() {
    std::string pattern = (fs::temp_directory_path() / "moecast-runner-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~MpiRunner() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  /// A launcher that says who it is and where its plan lies ("-n 2 PROGRAM PLAN RESULTS"), then does `more`.
  MpiLauncher launcher(const std::string& more) const {
    const std::string script = folder_ / "launch";
    std::ofstream(script) << "#!/bin/sh\necho $$ $4 > " << (folder_ / "who.part").string() << "\nmv "
                          << (folder_ / "who.part").string() << " " << who() << "\n"
                          << more << "\n";
    chmod(script.c_str(), 0700);
    MpiLauncher launcher;
    launcher.command = script;
    launcher.program = "moecast-mpi";
    return launcher;
  }
  [[nodiscard]] std::string who() const { return folder_ / "who"; }
  [[nodiscard]] std::pair<pid_t, fs::path> running() const {
    std::pair<pid_t, fs::path> found{0, {}};
    std::ifstream(who()) >> found.first >> found.second;
    return found;
  }
  static MpiPlan plan() {
    MpiPlan plan;
    plan.ranks = 2;
    plan.points.emplace_back();
    return plan;
  }
  fs::path folder_;
};

std::string refusal(const MpiPlan& plan, const MpiLauncher& launcher) {
  try {
    run_mpi_plan(plan, launcher);
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "it was done";
}

TEST_F(MpiRunner, ALauncherThatMeasuresNothingIsToldWhatItDid) {
  EXPECT_THAT(refusal(plan(), launcher("echo hello from nowhere")),
              testing::AllOf(HasSubstr("without a measurement"), HasSubstr("hello from nowhere")));
  EXPECT_THAT(refusal(plan(), launcher("exit 7")), HasSubstr("exit code 7"));
  EXPECT_THAT(refusal(plan(), launcher("kill -9 $$")), HasSubstr("signal 9"));
  EXPECT_FALSE(fs::exists(running().second.parent_path())) << "its folder is gone";
}

TEST_F(MpiRunner, AnInterruptEndsTheLauncherAndItsFolder) {
  std::atomic<bool> interrupted{false};
  MpiLauncher asked = launcher("exec sleep 600");
  asked.interrupted = &interrupted;
  asked.progress = [&](double) { interrupted.store(fs::exists(who())); };
  EXPECT_THROW(run_mpi_plan(plan(), asked), MpiInterrupted);
  const auto [process, file] = running();
  EXPECT_NE(kill(process, 0), 0) << "it still runs";
  EXPECT_FALSE(fs::exists(file.parent_path()));
}

TEST_F(MpiRunner, WhereItsOwnerIsKilledNothingIsLeftEither) {
  // One that ignores a polite request, as a wrapper may.
  const MpiLauncher asked = launcher("trap '' TERM\nsleep 600 & wait; sleep 600");
  const pid_t owner = fork();
  ASSERT_GE(owner, 0);
  if (owner == 0) {
    try {
      run_mpi_plan(plan(), asked);
    } catch (...) {
    }
    _exit(0);
  }
  ASSERT_TRUE(comes_true([&] { return fs::exists(who()); }));
  const auto [process, file] = running();
  kill(owner, SIGKILL);
  waitpid(owner, nullptr, 0);
  EXPECT_TRUE(comes_true([&] { return kill(process, 0) != 0; })) << "the launcher still runs";
  EXPECT_TRUE(comes_true([&] { return !fs::exists(file.parent_path()); })) << "its folder is still there";
}

}  // namespace
}  // namespace moecast
