#include "profiler/timing/session.h"

#include <benchmark/benchmark.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>

namespace moecast {
namespace {

/// One job takes at most this many calls a sample, however short they are.
constexpr double kMostCalls = 3000;
/// A call this long is a sample by itself: more would only spend the budget.
constexpr double kLongCallSeconds = 0.05;

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double thread_cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

long involuntary_switches() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

/// Keeps the wall time that the harness measured for each repetition; prints nothing.
class Collector final : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context& /*context*/) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration || run.iterations == 0) continue;
      walls.push_back(run.real_accumulated_time / static_cast<double>(run.iterations));
    }
  }
  std::vector<double> walls;
};

struct Budget {
  Clock::time_point start;
  const SessionOptions& options;
  [[nodiscard]] bool interrupted() const { return options.interrupted != nullptr && options.interrupted->load(); }
  [[nodiscard]] bool over(double share) const { return since(start) > share * options.budget.value(); }
};

/// A CPU that slept runs slowly for some 20 ms after it wakes (seen on virtual machines: 430 us instead of 265 a call).
void wake_cpus(int threads) {
  constexpr double kSeconds = 0.05;
#pragma omp parallel num_threads(threads)
  {
    const auto start = Clock::now();
    while (since(start) < kSeconds) {
    }
  }
}

/// A random order in which jobs of equally many threads follow each other, so that CPUs fall asleep seldom.
void shuffle_jobs(std::vector<std::size_t>& order, const std::vector<std::unique_ptr<Job>>& jobs,
                  std::mt19937_64& generator) {
  std::shuffle(order.begin(), order.end(), generator);
  const bool few_first = generator() % 2 == 0;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return few_first ? jobs[a]->threads() < jobs[b]->threads() : jobs[a]->threads() > jobs[b]->threads();
  });
}

/// Share of the jobs that have come when the last of as many threads as job `i` has.
double share_of_group(std::size_t i, const std::vector<std::size_t>& order,
                      const std::vector<std::unique_ptr<Job>>& jobs) {
  std::size_t end = i + 1;
  while (end < order.size() && jobs[order[end]]->threads() == jobs[order[i]]->threads()) ++end;
  return static_cast<double>(end) / static_cast<double>(order.size());
}

/// Samples of one job in one round: the harness repeats `calls` calls, with CPU time and switches noted beside.
std::vector<Sample> time_job(Job& job, int round, const SessionOptions& options) {
  job.prepare();
  job.warm_up();
  const auto start = Clock::now();
  job.run();
  const double one = std::max(since(start), 1e-8);
  const bool cold = job.ring_bytes() > options.cold_ring_bytes;
  const double wanted = (cold ? options.cold_sample_time : options.sample_time).value();
  const int calls = std::max(job.calls_per_sample(), static_cast<int>(std::clamp(wanted / one, 1.0, kMostCalls)));
  const int repetitions = one > kLongCallSeconds ? 1 : options.samples_per_round;

  std::vector<Sample> samples;
  Collector collector;
  benchmark::RegisterBenchmark("job",
                               [&](benchmark::State& state) {
                                 const long switches = involuntary_switches();
                                 const double cpu = thread_cpu_seconds();
                                 for (auto _ : state) job.run();
                                 Sample sample;
                                 sample.cpu = Seconds((thread_cpu_seconds() - cpu) / calls);
                                 sample.involuntary_switches = involuntary_switches() - switches;
                                 samples.push_back(sample);
                               })
      ->Iterations(calls)
      ->Repetitions(repetitions)
      ->UseRealTime();
  benchmark::RunSpecifiedBenchmarks(&collector);
  benchmark::ClearRegisteredBenchmarks();
  samples.resize(std::min(samples.size(), collector.walls.size()));
  for (std::size_t i = 0; i < samples.size(); ++i) {
    samples[i].round = round;
    samples[i].calls = calls;
    samples[i].wall = Seconds(collector.walls[i]);
  }
  return samples;
}

}  // namespace

std::vector<JobSamples> run_session(const std::vector<std::unique_ptr<Job>>& jobs, const SessionOptions& options) {
  std::vector<JobSamples> results(jobs.size());
  std::vector<std::size_t> order(jobs.size());
  std::iota(order.begin(), order.end(), 0U);
  std::mt19937_64 generator(options.seed);
  const Budget budget{Clock::now(), options};
  // An interval needs two rounds: a first round that has to end gets half of the time, each group of jobs its share.
  const double first_share = options.rounds > 1 ? 0.5 : 1;
  double done = 0;
  for (int round = 0; round < options.rounds; ++round) {
    shuffle_jobs(order, jobs, generator);
    std::vector<std::size_t> reached;
    int awake = 1;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::size_t index = order[i];
      const bool needed = round < 2 && index < options.indispensable.size() && options.indispensable[index];
      if (budget.interrupted() || (round > 1 && budget.over(1))) return results;
      if (round == 1 && budget.over(1) && !needed) continue;
      if (round == 0 && !needed && !options.whole_first_round &&
          budget.over(first_share * share_of_group(i, order, jobs)))
        continue;
      reached.push_back(index);
      if (jobs[index]->threads() > awake) wake_cpus(jobs[index]->threads());
      awake = jobs[index]->threads();
      auto samples = time_job(*jobs[index], round, options);
      auto& kept = results[index].samples;
      kept.insert(kept.end(), samples.begin(), samples.end());
      done += 1;
      if (options.progress) {
        const double total = static_cast<double>(order.size()) * options.rounds;
        const double spent = since(budget.start);
        const double left = std::min(spent / done * (total - done), options.budget.value() - spent);
        options.progress(done / total, Seconds(std::max(0.0, left)));
      }
    }
    order = std::move(reached);
    if (options.after_round) options.after_round(results);
  }
  return results;
}

}  // namespace moecast
