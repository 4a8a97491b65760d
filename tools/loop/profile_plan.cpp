#include "tools/loop/profile_plan.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "profiler/cpu/gemm.h"
#include "profiler/cpu/settle.h"
#include "profiler/environment.h"
#include "profiler/timing/session.h"
#include "tools/loop/machine_record.h"

namespace moecast {
namespace {

constexpr double kWarmRingBytes = 300e6;
constexpr double kTouchBytesPerS = 1.5e10;
constexpr double kOverheadPerRound = 1.2e-3;
constexpr double kGuessedFlopsPerS = 1e11;
constexpr double kGuessedBytesPerS = 1.2e10;
constexpr int kLayersPerCombination = 7;
constexpr std::size_t kOtherStrata = 4;  ///< three strategies and transformers, dealt out to the combinations in turn

ProfileBackend describe_backend(const Combination& c) {
  const auto gemm = make_gemm(c.backend, c.dtype, 256, 256, c.threads);
  gemm->prepare(16);
  return {c.backend,
          c.dtype,
          gemm_library(c.backend),
          gemm->implementation(16),
          gemm_row_bucket(c.backend, c.dtype),
          gemm_weight_packing(c.backend)};
}

/// Largest rate over the measurements of one dtype and thread count; 0 when there are none.
template <class Rate>
double best(const std::vector<Measurement>& measurements, DType dtype, int threads, OperatorKind kind, Rate rate) {
  double most = 0;
  for (const Measurement& row : measurements) {
    const KernelPoint& p = row.point;
    if (p.kind == kind && p.dtype == dtype && p.threads == threads) most = std::max(most, rate(row));
  }
  return most;
}

}  // namespace

Profile describe_machine(const std::string& name, const std::vector<Combination>& combinations) {
  const Environment machine = read_environment();
  Profile profile;
  profile.name = name;
  profile.device = "cpu";
  profile.created = fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::chrono::system_clock::now()));
  profile.environment = environment_record(machine);
  profile.notes = timing_warnings(machine);
  if (machine.memory_bytes) {
    profile.quantities["memory_capacity"] = {
        static_cast<double>(*machine.memory_bytes), "B", {}, {}, Origin::measured, "/proc/meminfo"};
  }
  std::set<int> threads;
  for (const Combination& c : combinations) {
    threads.insert(c.threads);
    const auto known = [&](const ProfileBackend& b) { return b.name == c.backend && b.dtype == c.dtype; };
    if (std::none_of(profile.backends.begin(), profile.backends.end(), known)) {
      profile.backends.push_back(describe_backend(c));
    }
  }
  record_threads(profile, {threads.begin(), threads.end()});
  return profile;
}

Seconds expected_time(const std::vector<KernelPoint>& points, int rounds) {
  const SessionOptions timing;
  double seconds = 0;
  for (const KernelPoint& p : points) {
    const double ring = p.footprint.value();
    const double sample = (ring > timing.cold_ring_bytes ? timing.cold_sample_time : timing.sample_time).value();
    const double touched = ring <= kWarmRingBytes ? ring : 1e8;
    const double touch = settling_passes(ring) * touched / kTouchBytesPerS / p.threads;
    const double elements = static_cast<double>(p.shape.n) * static_cast<double>(p.shape.k);
    const double call = p.kind == OperatorKind::gemm
                            ? 2 * static_cast<double>(p.shape.m) * elements / kGuessedFlopsPerS +
                                  elements * bytes_per_weight(p.dtype) / kGuessedBytesPerS
                            : 0;
    seconds += timing.samples_per_round * std::max(sample, call) + 2 * call + touch + kOverheadPerRound;
  }
  return Seconds(seconds * rounds);
}

PlanOptions plan_for(const std::vector<Combination>& combinations, Seconds budget, int rounds) {
  const PlanOptions full;
  PlanOptions plan;
  plan.combinations = combinations;
  const auto scale = [&](double share) {
    const auto count = [&](int whole, int least) {
      return std::max(least, static_cast<int>(std::lround(whole * share)));
    };
    plan.gemm_points = count(full.gemm_points, 24);
    plan.bandwidth_points = count(full.bandwidth_points, 12);
    plan.router_points = count(full.router_points, 8);
    plan.stage_points = count(full.stage_points, 10);
  };
  double low = 0.2;
  double high = 1.5;
  for (int i = 0; i < 12; ++i) {
    const double middle = 0.5 * (low + high);
    scale(middle);
    (expected_time(initial_points(plan), rounds) <= budget ? low : high) = middle;
  }
  scale(low);
  return plan;
}

std::vector<ValidationCase> closure_layers(const std::vector<Combination>& combinations) {
  CaseOptions options;
  options.cases = kLayersPerCombination * static_cast<int>(combinations.size() + kOtherStrata);
  options.seed = 0x6c61796572;
  options.combinations = combinations;
  options.most_weight_bytes = 3e8;
  options.most_flops = 3e9;
  return draw_cases(options);
}

void summarise_machine(Profile& profile, const std::vector<Measurement>& measurements) {
  const std::string source = "fastest of the GEMM and copy microbenchmarks";
  std::set<std::pair<DType, int>> seen;
  for (const Measurement& row : measurements) seen.emplace(row.point.dtype, row.point.threads);
  for (const auto& [dtype, threads] : seen) {
    const double flops = best(measurements, dtype, threads, OperatorKind::gemm, [](const Measurement& row) {
      const OperatorShape& s = row.point.shape;
      return 2 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k) / row.latency.value();
    });
    if (flops > 0) {
      profile.quantities[fmt::format("peak_{}_{}_threads", to_string(dtype), threads)] = {
          flops, "FLOP/s", {}, {}, Origin::measured, source};
    }
    const double copied = best(measurements, dtype, threads, OperatorKind::copy, [](const Measurement& row) {
      const bool cold = row.point.footprint.value() > 2.5e8;
      return cold ? 2 * static_cast<double>(row.point.shape.bytes) / row.latency.value() : 0;
    });
    if (copied > 0) {
      profile.quantities[fmt::format("copy_bandwidth_{}_threads", threads)] = {
          copied, "B/s", {}, {}, Origin::measured, "copy microbenchmark on rings above 250 MB"};
    }
  }
}

}  // namespace moecast
