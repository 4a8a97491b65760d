#include "tools/loop/profile_plan.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "profiler/cpu/gemm.h"
#include "profiler/cpu/settle.h"
#include "profiler/environment.h"
#include "profiler/timing/session.h"
#include "tools/loop/machine_record.h"
#include "tools/loop/session_runner.h"

namespace moecast {
namespace {

constexpr double kOverheadPerRound = 1.2e-3;
/// Attention cores reach about this share of what a GEMM does.
constexpr double kAttentionShare = 1.0 / 12;
/// Longer calls would spend the budget on few points.
constexpr double kMostCallSeconds = 0.06;
constexpr double kMostLayerSeconds = 0.03;
constexpr double kUsualShare = 0.4;   ///< of the longest layer, in the mean
constexpr double kCallsPerRound = 6;  ///< of a layer: warm up, measure one, three samples
/// Expectations are rough: only a plan that is late by more is refused.
constexpr double kLateRatio = 1.5;
constexpr double kWholeBufferBudget = 60;  ///< s; filling 3 GB of buffers takes some seconds
constexpr int kFewestRounds = 2;           ///< below, no interval could be given
constexpr int kLayersPerCombination = 7;
constexpr std::size_t kOtherStrata = 4;  ///< three strategies and transformers, dealt out to the combinations in turn

ProfileBackend describe_backend(const KernelSetting& c) {
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

Profile describe_machine(const std::string& name, const std::vector<KernelSetting>& combinations) {
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
  for (const KernelSetting& c : combinations) {
    threads.insert(c.threads);
    const auto known = [&](const ProfileBackend& b) { return b.name == c.backend && b.dtype == c.dtype; };
    if (std::none_of(profile.backends.begin(), profile.backends.end(), known)) {
      profile.backends.push_back(describe_backend(c));
    }
  }
  record_threads(profile, {threads.begin(), threads.end()});
  return profile;
}

MachineSpeed measure_speed(const KernelSetting& combination, const KernelBuffers& buffers) {
  KernelPoint busy;
  busy.backend = combination.backend;
  busy.dtype = combination.dtype;
  busy.threads = 1;
  busy.shape.m = 128;
  busy.shape.n = busy.shape.k = 1024;
  KernelPoint cold = busy;
  cold.shape.m = 1;
  cold.footprint = Bytes(3 * cache_reach_bytes());
  SessionRequest session;
  session.kernels = {busy, cold};
  session.timing.rounds = 3;  // one round may fall into a moment that the machine gave to others
  MachineSpeed speed;
  for (const Measurement& row : run_mixed_session(session, buffers).kernels) {
    const double elements = static_cast<double>(row.point.shape.n) * static_cast<double>(row.point.shape.k);
    if (row.point == busy) speed.flops_per_s = 2 * static_cast<double>(busy.shape.m) * elements / row.latency.value();
    if (row.point == cold) speed.bytes_per_s = elements * bytes_per_weight(busy.dtype) / row.latency.value();
  }
  return speed;
}

namespace {

/// Rough time of one call; stages but attention are short beside a sample.
double expected_call(const KernelPoint& p, const MachineSpeed& speed) {
  const OperatorShape& s = p.shape;
  const auto number = [](std::int64_t x) { return static_cast<double>(x); };
  if (p.kind == OperatorKind::gemm) {
    return 2 * number(s.m) * number(s.n) * number(s.k) / speed.flops_per_s +
           number(s.n) * number(s.k) * bytes_per_weight(p.dtype) / speed.bytes_per_s;
  }
  if (p.kind == OperatorKind::fused_moe) {
    const double expert = number((2 + s.gated) * s.hidden * s.width);
    return 2 * number(s.tokens * s.top_k) * expert / speed.flops_per_s +
           number(s.experts) * expert * bytes_per_weight(p.dtype) / speed.bytes_per_s;
  }
  if (p.kind == OperatorKind::attention_prefill || p.kind == OperatorKind::attention_decode) {
    return 4 * number(s.batch) * number(s.query) * number(s.context) * number(s.heads) * number(s.head_dim) /
           (kAttentionShare * speed.flops_per_s);
  }
  return 0;
}

}  // namespace

Seconds expected_time(const std::vector<KernelPoint>& points, int rounds, const MachineSpeed& speed) {
  const SessionOptions timing;
  const double reach = cache_reach_bytes();
  double seconds = 0;
  for (const KernelPoint& p : points) {
    const double ring = p.footprint.value();
    const double sample = (ring > timing.cold_ring_bytes ? timing.cold_sample_time : timing.sample_time).value();
    const double touched = ring <= 2 * reach ? ring : 2.0 / 3 * reach;
    const double touch = settling_passes(ring, reach) * touched / speed.bytes_per_s / p.threads;
    const double call = expected_call(p, speed);
    seconds += timing.samples_per_round * std::max(sample, call) + 2 * call + touch + kOverheadPerRound;
  }
  return Seconds(seconds * rounds);
}

std::size_t weight_buffer_bytes(Seconds budget) {
  const double share = std::clamp(budget.value() / kWholeBufferBudget, 0.25, 1.0);
  return static_cast<std::size_t>(share * static_cast<double>(std::size_t{2} << 30));
}

SpreadPlan plan_for(const std::vector<KernelSetting>& combinations, Seconds budget, int rounds, double most_ring_bytes,
                    const MachineSpeed& speed) {
  PlanOptions full;
  full.most_ring_bytes = std::min(full.most_ring_bytes, most_ring_bytes);
  full.cache_reach_bytes = cache_reach_bytes();
  full.cache_bytes.clear();
  for (const CacheLevel& cache : read_environment().caches) {
    full.cache_bytes.push_back(static_cast<double>(cache.bytes));
  }
  full.most_flops = std::min(full.most_flops, kMostCallSeconds * speed.flops_per_s);
  PlanOptions plan = full;
  plan.combinations = combinations;
  const auto scale = [&](double share) {
    const auto count = [&](int whole, int least) {
      return std::max(least, static_cast<int>(std::lround(whole * share)));
    };
    plan.gemm_points = count(full.gemm_points, 12);
    plan.bandwidth_points = count(full.bandwidth_points, 10);
    plan.router_points = count(full.router_points, 4);
    plan.stage_points = count(full.stage_points, 10);
    plan.grouped_points = std::min(full.grouped_points, count(full.grouped_points, 2));
  };
  double low = 0.1;
  scale(low);
  rounds = expected_time(initial_points(plan), rounds, speed) > budget ? kFewestRounds : rounds;
  const Seconds least = expected_time(initial_points(plan), rounds, speed);
  if (least > kLateRatio * budget) {
    throw UsageError("--budget",
                     fmt::format("the fewest points of {} combinations of backend, dtype and threads take about {} on "
                                 "this machine, {} of the budget are for them",
                                 combinations.size(), format_seconds(least), format_seconds(budget)),
                     "give more time, or name fewer with --backend, --dtype or --threads");
  }
  double high = 1.5;
  for (int i = 0; i < 12; ++i) {
    const double middle = 0.5 * (low + high);
    scale(middle);
    (expected_time(initial_points(plan), rounds, speed) <= budget ? low : high) = middle;
  }
  scale(low);
  return {plan, rounds};
}

std::vector<ValidationCase> closure_layers(const std::vector<KernelSetting>& combinations, const MachineSpeed& speed,
                                           Seconds budget, int rounds) {
  CaseOptions options;
  const int strata = static_cast<int>(combinations.size() + kOtherStrata);
  const double affordable = budget.value() / (rounds * kCallsPerRound * kUsualShare * kMostLayerSeconds);
  // A budget of any size: more than an int holds.
  options.cases = std::max(strata, static_cast<int>(std::min<double>(affordable, kLayersPerCombination * strata)));
  options.seed = 0x6c61796572;
  options.combinations = combinations;
  options.most_weight_bytes = std::min(3e8, kMostLayerSeconds * speed.bytes_per_s);
  options.most_flops = std::min(3e9, kMostLayerSeconds * speed.flops_per_s);
  return draw_cases(options);
}

namespace {

/// "L2" where a loop over so many bytes lies, "memory" beyond the last level.
std::string level_of(double bytes, const std::vector<CacheLevel>& caches) {
  for (const CacheLevel& cache : caches) {
    if (bytes <= static_cast<double>(cache.bytes)) return fmt::format("L{}", cache.level);
  }
  return "memory";
}

/// Read and copy bandwidth of every level, and the smallest call of every backend.
void summarise_calls_and_levels(Profile& profile, const std::vector<Measurement>& measurements) {
  const std::vector<CacheLevel> caches = read_environment().caches;
  for (const Measurement& row : measurements) {
    const KernelPoint& p = row.point;
    const auto keep = [&](const std::string& name, double value, const char* unit, const char* source, bool most) {
      const auto found = profile.quantities.find(name);
      if (found != profile.quantities.end() && (most ? found->second.value >= value : found->second.value <= value))
        return;
      profile.quantities[name] = {value, unit, {}, {}, Origin::measured, source};
    };
    if (p.kind == OperatorKind::read || p.kind == OperatorKind::copy) {
      const bool copies = p.kind == OperatorKind::copy;
      const double moved = (copies ? 2 : 1) * static_cast<double>(p.shape.bytes);
      keep(fmt::format("{}_bandwidth_{}_{}_threads", to_string(p.kind), level_of(p.footprint.value(), caches),
                       p.threads),
           moved / row.latency.value(), "B/s",
           copies ? "fastest copy in the level, bytes read and written" : "fastest read in the level", true);
    }
    if (p.kind == OperatorKind::call) {
      keep(fmt::format("call_overhead_{}_{}_{}_threads", p.backend, to_string(p.dtype), p.threads), row.latency.value(),
           "s", "a GEMM of 1 x 16 x 16", false);
    }
  }
}

}  // namespace

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
  summarise_calls_and_levels(profile, measurements);
}

}  // namespace moecast
