#pragma once
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "hwprofiles/kernel_samples.h"
#include "sim/cost/kernel/kernel_law.h"
#include "sim/cost/kernel/table_load.h"

namespace moecast::test {

inline DeviceLimits made_up_device() { return {4.8e12, 989e12, 50e6, 132}; }

struct MoeShape {
  double hidden, inter, top_k, experts;
};

inline const std::vector<double>& made_up_tokens() {
  static const std::vector<double> tokens{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
  return tokens;
}

/// Seconds of both GEMMs of one rank's experts.
/// @param waves  whole tiles of 64 x 128 in whole waves over 132 multiprocessors; else whole tiles of 64 rows alone.
inline double tile_seconds(const RankLoad& load, double hidden, double width, bool waves) {
  const double row_tiles = load.distinct * std::ceil(load.rows / load.distinct / 64);
  if (!waves) return 2 * 64 * row_tiles * 3 * hidden * width / 600e12;
  const auto gemm = [&](double columns, double depth) {
    const double tiles = row_tiles * std::ceil(columns / 128);
    return std::ceil(tiles / 132) * 132 * 2 * 64 * 128 * depth / 600e12;
  };
  return gemm(2 * width, hidden) + gemm(hidden, width);
}

/// A MoE kernel whose truth is known: tiles as above, weights at 3.6 TB/s, 600 TFLOP/s, 8 us of launches, and a smooth
/// surface of (hidden, width) on top. @param noise  standard deviation of ln(latency).
inline KernelSamples tile_exact_moe(const std::vector<MoeShape>& shapes, double noise, std::uint64_t seed = 7,
                                    bool waves = false) {
  KernelSamples samples;
  samples.key = {"vllm", "1.0", "moe", "tile_exact", "bfloat16"};
  samples.columns.resize(samples.layout().numbers.size());
  RankLoadCache loads;
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, noise);
  for (const MoeShape& s : shapes) {
    for (const double tp : {1.0, 2.0, 4.0}) {
      for (const double ep : {1.0, 2.0, 4.0}) {
        if (std::fmod(s.experts, ep) != 0) continue;
        for (const double alpha : {0.0, 1.2}) {
          for (const double tokens : made_up_tokens()) {
            const double row[] = {tokens, s.hidden, s.inter, s.top_k, s.experts, tp, ep, alpha, 3};
            const RankLoad load = table_load(samples.key, row, loads)
                                      .value_or(timed_rank_load(
                                          static_cast<std::int64_t>(tokens), static_cast<std::int64_t>(s.top_k),
                                          static_cast<std::int64_t>(s.experts), static_cast<std::int64_t>(ep), alpha));
            const double width = std::ceil(s.inter / tp);
            const double memory = load.distinct * s.hidden * width * 3 * 2 / 3.6e12;
            const double compute = tile_seconds(load, s.hidden, width, waves);
            const double surface = 0.08 * std::sin(std::log(s.hidden) * 2) * std::cos(std::log(width));
            const double seconds =
                8e-6 + std::sqrt(memory * memory + compute * compute) + 2 * load.rows * (2 * s.hidden + width) / 4e12;
            for (std::size_t c = 0; c < samples.columns.size(); ++c) samples.columns[c].push_back(row[c]);
            samples.latency_s.push_back(seconds * std::exp(surface + normal(random)));
          }
        }
      }
    }
  }
  std::vector<KernelSamples> sorted;
  merge_kernel_samples(sorted, {samples});
  return sorted.front();
}

inline std::vector<MoeShape> grid_shapes() {
  return {{2048, 1024, 8, 64},  {2048, 768, 8, 128},  {4096, 1536, 8, 128}, {4096, 2048, 4, 64},
          {7168, 2048, 8, 256}, {6144, 2560, 8, 160}, {3072, 1024, 8, 256}, {4096, 14336, 2, 8}};
}

}  // namespace moecast::test
