#include "profiler/cpu/settle.h"

#include <benchmark/benchmark.h>

#include <algorithm>

#include "profiler/environment.h"

namespace moecast {
namespace {

constexpr std::size_t kCacheLine = 64;
constexpr double kMostReachBytes = 150e6;
constexpr double kLeastReachBytes = 16e6;
constexpr double kReachOfLastLevel = 4;
constexpr double kBytesPerPass = 6e6;
constexpr int kLeastPasses = 3;

void read_lines(Region region, int threads) {
  const std::size_t lines = region.size() / kCacheLine;
  unsigned sum = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : sum)
  for (std::size_t i = 0; i < lines; ++i) sum += static_cast<unsigned>(region[i * kCacheLine]);
  benchmark::DoNotOptimize(sum);
}

double reach_of(const Environment& environment) {
  double last_level = 0;
  for (const CacheLevel& cache : environment.caches)
    last_level = std::max(last_level, static_cast<double>(cache.bytes));
  if (last_level == 0) return kMostReachBytes;
  return std::clamp(kReachOfLastLevel * last_level, kLeastReachBytes, kMostReachBytes);
}

}  // namespace

double cache_reach_bytes() {
  static const double reach = reach_of(read_environment());
  return reach;
}

int settling_passes(double loop_bytes, double reach_bytes) {
  return loop_bytes > reach_bytes ? 1 : std::max(kLeastPasses, static_cast<int>(loop_bytes / kBytesPerPass));
}

void settle_caches(const std::vector<Region>& regions, double loop_bytes, int threads) {
  const int passes = settling_passes(loop_bytes);
  for (int pass = 0; pass < passes; ++pass) {
    for (const Region& region : regions) read_lines(region, threads);
  }
}

}  // namespace moecast
