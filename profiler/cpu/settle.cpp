#include "profiler/cpu/settle.h"

#include <benchmark/benchmark.h>

#include <algorithm>

namespace moecast {
namespace {

constexpr std::size_t kCacheLine = 64;
constexpr double kSharedBytes = 150e6;
constexpr double kBytesPerPass = 6e6;
constexpr int kLeastPasses = 3;

void read_lines(Region region, int threads) {
  const std::size_t lines = region.size() / kCacheLine;
  unsigned sum = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : sum)
  for (std::size_t i = 0; i < lines; ++i) sum += static_cast<unsigned>(region[i * kCacheLine]);
  benchmark::DoNotOptimize(sum);
}

}  // namespace

int settling_passes(double loop_bytes) {
  return loop_bytes > kSharedBytes ? 1 : std::max(kLeastPasses, static_cast<int>(loop_bytes / kBytesPerPass));
}

void settle_caches(const std::vector<Region>& regions, double loop_bytes, int threads) {
  const int passes = settling_passes(loop_bytes);
  for (int pass = 0; pass < passes; ++pass) {
    for (const Region& region : regions) read_lines(region, threads);
  }
}

}  // namespace moecast
