#include "profiler/cpu/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace moecast {
namespace {

/// Additive recurrence with the generalised golden ratio of d dimensions (Roberts 2018): even in every projection.
template <std::size_t Dimensions>
class LowDiscrepancy {
 public:
  explicit LowDiscrepancy(double start) : index_(start) {
    double g = 2;
    for (int i = 0; i < 60; ++i) g = std::pow(1 + g, 1.0 / (Dimensions + 1));
    for (std::size_t d = 0; d < Dimensions; ++d) step_[d] = std::pow(1 / g, static_cast<double>(d + 1));
  }
  std::array<double, Dimensions> next() {
    std::array<double, Dimensions> point{};
    index_ += 1;
    for (std::size_t d = 0; d < Dimensions; ++d) point[d] = std::fmod(0.5 + index_ * step_[d], 1.0);
    return point;
  }

 private:
  double index_;
  std::array<double, Dimensions> step_{};
};

/// Heads x keys x width of decoded attention: some 8 ms.
constexpr std::int64_t kMostDecodeElements = std::int64_t{1} << 25;

std::int64_t multiple(double value, std::int64_t step) {
  return std::max<std::int64_t>(step, std::llround(value / static_cast<double>(step)) * step);
}

std::int64_t power_of_two(std::int64_t value) {
  return std::llround(std::exp2(std::round(std::log2(static_cast<double>(value)))));
}

/// Rings up to twice the cache reach are read whole before each round, so that caches settle: the largest of them cost
/// more than their samples. Between what is cheap to read and what needs no reading only the bandwidth curve has
/// points.
double cheap_ring(double bytes, double reach) {
  const double cheap = reach * 11 / 15;
  const double unread = reach * 32 / 15;
  if (bytes <= cheap || bytes >= unread) return bytes;
  return bytes * bytes < cheap * unread ? cheap : unread;
}

KernelPoint gemm_point(const KernelSetting& c, std::int64_t m, std::int64_t n, std::int64_t k, double ring,
                       double input, double output) {
  KernelPoint point;
  point.backend = c.backend;
  point.dtype = c.dtype;
  point.threads = c.threads;
  point.shape.m = m;
  point.shape.n = n;
  point.shape.k = k;
  point.footprint = Bytes(std::floor(ring));
  point.input_footprint = Bytes(std::floor(input));
  point.output_footprint = Bytes(std::floor(output));
  return point;
}

/// Few rows over rings of all sizes: half over the whole range, half where last-level caches end.
void add_bandwidth_curve(const KernelSetting& c, const PlanOptions& options, std::vector<KernelPoint>& points) {
  constexpr std::array<std::int64_t, 12> kRows{1, 1, 2, 2, 4, 4, 1, 1, 2, 2, 16, 16};
  constexpr std::array<std::pair<std::int64_t, std::int64_t>, 4> kShapes{
      {{1024, 512}, {704, 768}, {2048, 1024}, {512, 2048}}};
  const int half = std::max(2, options.bandwidth_points / 2);
  const double log_reach = std::log2(options.cache_reach_bytes);
  for (int i = 0; i < options.bandwidth_points; ++i) {
    const int pair = i / 2;
    const double share = static_cast<double>(pair) / (half - 1);
    const double ring = std::exp2(i % 2 == 1 ? 20.5 + 10.3 * share : log_reach - 3.16 + 3.4 * share);
    const auto& [n, k] = kShapes[static_cast<std::size_t>((i / 4 + i) % 4)];
    points.push_back(gemm_point(c, kRows[static_cast<std::size_t>(i) % kRows.size()], n, k,
                                std::min(ring, options.most_ring_bytes), 0, 0));
  }
}

/// One GEMM somewhere in the ranges, or nothing where a call would be too long.
bool make_gemm(const KernelSetting& c, const PlanOptions& options, const std::array<double, 7>& u, KernelPoint& point) {
  // Tokens spread over experts: few rows are more common than many.
  const auto m = std::llround(std::exp2(10.5 * std::pow(u[0], 1.4)));
  // The matrices of an expert: hidden x width (twice the width when gated) on the way up, width x hidden on the way
  // down.
  const std::int64_t hidden = multiple(std::exp2(8 + 4 * u[1]), 32);
  const std::int64_t width = multiple(std::exp2(7 + 6 * std::fmod(3 * u[2], 1.0)), 32);
  const bool down = u[2] >= 2.0 / 3;
  std::int64_t n = down ? hidden : width * (u[2] < 1.0 / 3 ? 2 : 1);
  std::int64_t k = down ? width : hidden;
  if (u[4] < 0.25) {
    n = power_of_two(n);
    k = power_of_two(k);
  }
  const double work = static_cast<double>(n) * static_cast<double>(k);
  if (2 * static_cast<double>(m) * work > options.most_flops * c.threads || work > 4e7) return false;
  const double weights = work * bytes_per_weight(c.dtype);
  // A fifth with warm weights, the rest log-uniform from one copy to far beyond any cache.
  const double share = (u[3] - 0.2) / 0.8;
  const double ring = share < 0
                          ? 0
                          : cheap_ring(weights * std::pow(std::max(1.0, options.most_ring_bytes / weights), share),
                                       options.cache_reach_bytes);
  // Rows of a layer come back after a share of it: half of the inputs have just been written, the results go to memory
  // last used one matrix to one whole ring ago.
  const double input = u[5] < 0.5 ? 0 : std::max(ring, 4 * weights) * std::exp2(-6 * (u[5] - 0.5) * 2);
  const double output = std::max(ring, 4 * weights) * std::exp2(-8 * u[6]);
  point = gemm_point(c, m, n, k, ring, input, output);
  return true;
}

void add_gemms(const KernelSetting& c, const PlanOptions& options, double start, int count,
               std::vector<KernelPoint>& points) {
  LowDiscrepancy<7> sequence(start);
  for (int made = 0, tried = 0; made < count && tried < 20 * count; ++tried) {
    KernelPoint point;
    if (!make_gemm(c, options, sequence.next(), point)) continue;
    points.push_back(point);
    ++made;
  }
}

void add_routers(const KernelSetting& c, const PlanOptions& options, std::vector<KernelPoint>& points) {
  LowDiscrepancy<3> sequence(0);
  constexpr std::array<double, 3> kRings{0, 40e6, 1.9e9};
  for (int i = 0; i < options.router_points; ++i) {
    const auto u = sequence.next();
    const double ring = std::min(kRings[static_cast<std::size_t>(i % 3)], options.most_ring_bytes);
    points.push_back(gemm_point(c, std::llround(std::exp2(11 * u[0])), std::llround(std::exp2(2 + 4 * u[1])),
                                multiple(std::exp2(8 + 4 * u[2]), 64), ring, ring, 0));
  }
}

/// A shape of every stage from one point of the sequence.
OperatorShape stage_shape(OperatorKind kind, const std::array<double, 6>& u) {
  OperatorShape s;
  const auto between = [](double low, double high, double x) {
    return std::llround(std::exp2(low + (high - low) * x));
  };
  s.tokens = between(0, 11, u[0]);
  s.top_k = 1 + static_cast<std::int64_t>(7.99 * u[1]);
  s.hidden = multiple(std::exp2(8 + 4 * u[2]), 64);
  s.experts = std::max<std::int64_t>(s.top_k, between(2, 6, u[3]));
  s.groups = 1;
  s.m = between(0, 11, u[0]);
  s.width = multiple(std::exp2(7 + 6 * u[2]), 32);
  if (kind == OperatorKind::elementwise) s.width = s.hidden;
  s.head_dim = std::fmod(16 * u[4], 1.0) < 0.5 ? 64 : 128;  // u[4] is the footprint too: both sizes at every one
  s.kv_heads = between(0, 3, u[3]);
  s.heads = s.kv_heads * between(0, 2, u[5]);
  if (kind == OperatorKind::attention_decode) {
    s.query = 1;
    s.context = between(4, 12, u[1]);
    const std::int64_t most = kMostDecodeElements / (s.context * s.heads * s.head_dim);
    s.batch = std::clamp<std::int64_t>(between(0, 6, u[0]), 1, std::max<std::int64_t>(1, most));
  } else {
    s.batch = between(0, 2, u[0]);
    s.query = between(4, 9, u[1]);
    s.context = s.query;
  }
  s.bytes = between(10, 22, u[0]);
  return s;
}

/// Leaves only the fields that the kind has.
OperatorShape only_columns(OperatorKind kind, const OperatorShape& all) {
  OperatorShape shape;
  for (const ShapeColumn& column : shape_columns(kind)) shape.*column.field = all.*column.field;
  return shape;
}

void add_stage(OperatorKind kind, DType dtype, int threads, bool gated, const PlanOptions& options,
               std::vector<KernelPoint>& points) {
  LowDiscrepancy<6> sequence(static_cast<double>(kind) * 17 + (gated ? 5 : 0));
  // Its law tells heads that are alone from heads side by side, in caches and in memory.
  const int count = kind == OperatorKind::attention_decode ? 2 * options.stage_points : options.stage_points;
  for (int i = 0; i < count; ++i) {
    const auto u = sequence.next();
    KernelPoint point;
    point.kind = kind;
    point.backend = "native";
    point.dtype = dtype;
    point.threads = threads;
    point.shape = only_columns(kind, stage_shape(kind, u));
    if (kind == OperatorKind::activation) point.shape.gated = gated ? 1 : 0;
    const double ring = cheap_ring(std::exp2(20 + 9 * u[4]), options.cache_reach_bytes);
    point.footprint = Bytes(std::floor(std::min(ring, options.most_ring_bytes)));
    points.push_back(point);
  }
}

/// Read and copy bandwidth: half of every cache level, and memory.
void add_bandwidth_levels(DType dtype, int threads, const PlanOptions& options, std::vector<KernelPoint>& points) {
  std::vector<double> regions;
  for (const double bytes : options.cache_bytes) regions.push_back(bytes / 2);
  regions.push_back(std::min(options.most_ring_bytes, 4 * options.cache_reach_bytes));
  for (const OperatorKind kind : {OperatorKind::read, OperatorKind::copy}) {
    for (const double region : regions) {
      KernelPoint point;
      point.kind = kind;
      point.backend = "native";
      point.dtype = dtype;
      point.threads = threads;
      // Pieces of at most 32 MB; a copy's source and target share the level.
      const double piece = std::min(region, 32e6) / (kind == OperatorKind::copy ? 2 : 1);
      point.shape.bytes = static_cast<std::int64_t>(piece) / 64 * 64;
      point.footprint = Bytes(std::floor(region));
      points.push_back(point);
    }
  }
}

/// Experts of a layer over a ragged histogram.
void add_grouped(const KernelSetting& c, const PlanOptions& options, std::vector<KernelPoint>& points) {
  LowDiscrepancy<5> sequence(3);
  for (int made = 0, tried = 0; made < options.grouped_points && tried < 20 * options.grouped_points; ++tried) {
    const auto u = sequence.next();
    KernelPoint point;
    point.kind = OperatorKind::fused_moe;
    point.backend = c.backend;
    point.dtype = c.dtype;
    point.threads = c.threads;
    OperatorShape& s = point.shape;
    s.tokens = std::llround(std::exp2(2 + 7 * u[0]));
    s.experts = std::llround(std::exp2(2 + 3 * u[1]));
    s.top_k = 1 + static_cast<std::int64_t>(2.99 * u[2]);
    s.hidden = multiple(std::exp2(8 + 2.5 * u[3]), 32);
    s.width = multiple(std::exp2(7 + 3.5 * u[4]), 32);
    s.gated = made % 2;
    const double expert = static_cast<double>((s.gated + 2) * s.hidden * s.width);
    const double weights = expert * static_cast<double>(s.experts) * bytes_per_weight(c.dtype);
    if (2 * expert * static_cast<double>(s.tokens * s.top_k) > options.most_flops * c.threads || weights > 60e6)
      continue;
    point.footprint = Bytes(std::floor(made % 3 == 0 ? weights : std::min(options.most_ring_bytes, 8 * weights)));
    points.push_back(point);
    ++made;
  }
}

}  // namespace

std::vector<KernelPoint> initial_points(const PlanOptions& options) {
  std::vector<KernelPoint> points;
  std::set<std::pair<DType, int>> stages;
  for (const KernelSetting& c : options.combinations) {
    add_bandwidth_curve(c, options, points);
    add_gemms(c, options, 0, options.gemm_points, points);
    add_routers(c, options, points);
    add_grouped(c, options, points);
    KernelPoint call;
    call.kind = OperatorKind::call;
    call.backend = c.backend;
    call.dtype = c.dtype;
    call.threads = c.threads;
    points.push_back(call);
    stages.emplace(c.dtype, c.threads);
  }
  using enum OperatorKind;
  for (const auto& [dtype, threads] : stages) {
    for (const OperatorKind kind :
         {router, permute, unpermute, norm, elementwise, attention_prefill, attention_decode, copy}) {
      add_stage(kind, dtype, threads, false, options, points);
    }
    add_stage(activation, dtype, threads, false, options, points);
    add_stage(activation, dtype, threads, true, options, points);
    add_bandwidth_levels(dtype, threads, options, points);
  }
  return points;
}

std::vector<bool> indispensable_points(const std::vector<KernelPoint>& points) {
  constexpr int kFew = 10;  // as many as the shortest budget plans of a stage; a law is fitted from 8 on
  std::map<std::tuple<OperatorKind, std::string, DType, int, std::int64_t>, int> seen;
  std::vector<bool> indispensable;
  indispensable.reserve(points.size());
  for (const KernelPoint& p : points) {
    const bool alone = p.kind == OperatorKind::read || p.kind == OperatorKind::copy || p.kind == OperatorKind::call;
    const int before = seen[{p.kind, p.backend, p.dtype, p.threads, p.shape.gated}]++;
    indispensable.push_back(alone || before < kFew);
  }
  return indispensable;
}

std::vector<KernelPoint> candidate_points(const PlanOptions& options, std::uint64_t seed, int count) {
  std::vector<KernelPoint> points;
  for (const KernelSetting& c : options.combinations) {
    add_gemms(c, options, 1000 + 7919 * static_cast<double>(seed % 1000), count, points);
  }
  return points;
}

}  // namespace moecast
