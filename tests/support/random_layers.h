#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "models/routing/load.h"
#include "sim/analytic/moe_batch.h"

namespace moecast {

/// Random MoE layers over the whole range that validation draws from, as columns of a batch.
struct RandomLayers {
  std::vector<std::int32_t> hidden, width, experts, top_k, tokens, copies, load;
  std::vector<std::uint8_t> gated;
  std::vector<float> capacity;

  /// @param loads  how many loads the batch has; each layer takes one of them.
  RandomLayers(std::size_t count, unsigned seed, std::size_t loads) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> u(0, 1);
    const auto log_uniform = [&](double low, double high) {
      return static_cast<std::int32_t>(std::lround(low * std::pow(high / low, u(generator))));
    };
    for (std::size_t i = 0; i < count; ++i) {
      hidden.push_back(std::max(1, log_uniform(256, 4096) / 64) * 64);
      width.push_back(std::max(1, log_uniform(128, 8192) / 32) * 32);
      experts.push_back(log_uniform(4, 64));
      top_k.push_back(std::min(experts.back(), 1 + static_cast<std::int32_t>(7.99 * u(generator))));
      tokens.push_back(log_uniform(1, 2048));
      copies.push_back(log_uniform(1, 16));
      load.push_back(static_cast<std::int32_t>(u(generator) * 0.999 * static_cast<double>(loads)));
      gated.push_back(u(generator) < 0.7 ? 1 : 0);
      capacity.push_back(u(generator) < 0.5 ? std::numeric_limits<float>::infinity()
                                            : static_cast<float>(0.5 + 1.5 * u(generator)));
    }
  }
  [[nodiscard]] std::size_t size() const { return hidden.size(); }
  [[nodiscard]] MoeColumns columns() const {
    return {hidden, width, experts, top_k, tokens, gated, capacity, copies, load};
  }
};

/// Room for all answers of a batch.
struct MoeAnswers {
  std::vector<double> latency, low, high, memory, compute, routing;
  std::vector<std::uint8_t> extrapolated;
  explicit MoeAnswers(std::size_t n)
      : latency(n), low(n), high(n), memory(n), compute(n), routing(n), extrapolated(n) {}
  [[nodiscard]] MoeTimes times() { return {latency, low, high, memory, compute, routing, extrapolated}; }
};

}  // namespace moecast
