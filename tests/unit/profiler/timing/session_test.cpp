#include "profiler/timing/session.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <thread>

#include "profiler/timing/summary.h"

namespace moecast {
namespace {

/// Burns CPU for a fixed time and counts what the session does to it.
class BusyJob final : public Job {
 public:
  explicit BusyJob(double seconds, int threads = 1) : seconds_(seconds), threads_(threads) {}
  void prepare() override { ++prepared; }
  void warm_up() override { ++warmed; }
  void run() override {
    ++runs;
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds_) {
    }
  }
  [[nodiscard]] int threads() const override { return threads_; }
  int prepared = 0;
  int warmed = 0;
  int runs = 0;

 private:
  double seconds_;
  int threads_;
};

TEST(RunSession, TimesEveryJobOnceARound) {
  std::vector<std::unique_ptr<Job>> jobs;
  jobs.push_back(std::make_unique<BusyJob>(1e-4));
  jobs.push_back(std::make_unique<BusyJob>(2e-4));
  SessionOptions options;
  options.rounds = 3;
  double last = 0;
  options.progress = [&](double done, Seconds /*left*/) { last = done; };
  const auto results = run_session(jobs, options);
  ASSERT_EQ(results.size(), 2U);
  for (const JobSamples& result : results) EXPECT_EQ(result.samples.size(), 9U);  // 3 rounds of 3 samples
  EXPECT_EQ(static_cast<BusyJob&>(*jobs[0]).prepared, 3);
  EXPECT_DOUBLE_EQ(last, 1);
  // A call cannot be shorter than the time it burns; the machine may make it longer, never by a promised amount.
  EXPECT_GE(summarise_timing(results[0])->latency.value(), 1e-4);
  EXPECT_GE(results[0].samples[0].cpu.value(), 0.5e-4);
}

TEST(RunSession, TimesFewerJobsTwiceRatherThanAllOnce) {
  std::vector<std::unique_ptr<Job>> jobs;
  for (int i = 0; i < 60; ++i) jobs.push_back(std::make_unique<BusyJob>(5e-3, 1 + i % 2));
  SessionOptions options;
  options.rounds = 2;
  options.budget = Seconds(0.8);
  options.whole_first_round = false;
  const auto results = run_session(jobs, options);
  std::array<int, 2> twice{};
  int once = 0;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (results[i].samples.empty()) continue;
    results[i].samples.back().round == 1 ? ++twice.at(i % 2) : ++once;
  }
  EXPECT_GT(twice[0], 0) << "of one thread";
  EXPECT_GT(twice[1], 0) << "of two threads";
  EXPECT_LT(twice[0] + twice[1], 60);
  EXPECT_LE(once, twice[0] + twice[1]);
}

TEST(RunSession, TimesTwiceWhatNothingCanDoWithout) {
  std::vector<std::unique_ptr<Job>> jobs;
  for (int i = 0; i < 60; ++i) jobs.push_back(std::make_unique<BusyJob>(5e-3));
  SessionOptions options;
  options.rounds = 3;
  options.budget = Seconds(0.2);
  options.whole_first_round = false;
  options.indispensable.assign(60, false);
  for (const std::size_t i : {7U, 41U, 59U}) options.indispensable[i] = true;
  const auto results = run_session(jobs, options);
  std::size_t left_out = 0;
  for (const JobSamples& result : results) left_out += result.samples.empty() ? 1 : 0;
  EXPECT_GT(left_out, 20U);
  for (const std::size_t i : {7U, 41U, 59U}) {
    ASSERT_FALSE(results[i].samples.empty());
    EXPECT_EQ(results[i].samples.back().round, 1);
  }
}

TEST(RunSession, StopsWhenInterrupted) {
  std::vector<std::unique_ptr<Job>> jobs;
  for (int i = 0; i < 4; ++i) jobs.push_back(std::make_unique<BusyJob>(1e-5));
  std::atomic<bool> interrupted{false};
  SessionOptions options;
  options.interrupted = &interrupted;
  options.progress = [&](double done, Seconds) { interrupted = done > 0.3; };
  const auto results = run_session(jobs, options);
  std::size_t samples = 0;
  for (const auto& result : results) samples += result.samples.size();
  EXPECT_GT(samples, 0U);
  EXPECT_LT(samples, 4U * 4U * 3U);
}

Sample sample(int round, double wall, long switches = 0) {
  Sample made;
  made.round = round;
  made.wall = Seconds(wall);
  made.involuntary_switches = switches;
  return made;
}

TEST(SummariseTiming, TakesTheMedianOfRoundMeans) {
  // Rounds: (1 + 3) / 2 = 2, 10, 4: median 4.
  const auto summary = summarise_timing({{sample(0, 1), sample(0, 3), sample(1, 10), sample(2, 4)}});
  ASSERT_TRUE(summary.has_value());
  EXPECT_DOUBLE_EQ(summary->latency.value(), 4);
  // sd of ln 2, 4, 10: 0.8073; times 4.303 * 1.2533 / sqrt(3).
  EXPECT_NEAR(summary->high.value(), 4 * std::exp(0.8073 * 4.303 * 1.2533 / std::sqrt(3.0)), 0.05);
  EXPECT_NEAR(summary->low.value() * summary->high.value(), 16, 1e-9);
  EXPECT_EQ(summary->samples, 4);
  ASSERT_EQ(summary->raw.size(), 4U);
  EXPECT_EQ(summary->raw[1], (RawSample{0, 0, 3, 0, 0}));
}

TEST(SummariseTiming, NeverClaimsMoreThanItsSamplesShow) {
  const auto one_round = summarise_timing({{sample(0, 1), sample(0, 1.1)}});
  EXPECT_LT(one_round->low.value(), 1);
  EXPECT_GT(one_round->high.value(), 1.1);
  std::vector<Sample> many;
  for (int round = 0; round < 7; ++round) many.push_back(sample(round, 1 + 0.01 * round));
  const auto rounds = summarise_timing({many});
  EXPECT_DOUBLE_EQ(rounds->latency.value(), 1.03);
  EXPECT_GT(rounds->high.value(), 1.04);
  EXPECT_LE(rounds->high.value(), 1.06);
}

TEST(SummariseTiming, LeavesPreemptedSamplesOutOfARoundThatHasOthers) {
  const auto summary = summarise_timing({{sample(0, 1), sample(0, 9, 2), sample(1, 5, 1)}});
  EXPECT_DOUBLE_EQ(summary->round_s[0], 1);
  EXPECT_DOUBLE_EQ(summary->round_s[1], 5);
  EXPECT_EQ(summary->preempted, 2);
}

TEST(SummariseTiming, IsUnknownWithoutSamples) { EXPECT_FALSE(summarise_timing({}).has_value()); }

TEST(RerunDifference, ComparesEvenWithOddRounds) {
  EXPECT_NEAR(rerun_difference({1, 2, 3, 2}).value(), 0, 1e-12);  // medians 2 and 2
  EXPECT_NEAR(rerun_difference({1.1, 1}).value(), 0.1, 1e-12);
  EXPECT_FALSE(rerun_difference({1}).has_value());
}

}  // namespace
}  // namespace moecast
