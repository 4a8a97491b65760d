#pragma once
#include <algorithm>
#include <random>
#include <vector>

#include "models/architecture/architecture.h"

namespace moecast {

/// Decoder-only models of `layers` layers whose layers differ: what a search draws.
inline std::vector<Architecture> random_models(std::size_t count, std::size_t layers, unsigned seed) {
  std::mt19937 generator(seed);
  const auto pick = [&](std::vector<std::int64_t> choices) {
    return choices[std::uniform_int_distribution<std::size_t>(0, choices.size() - 1)(generator)];
  };
  std::vector<Architecture> models(count);
  for (Architecture& model : models) {
    model.name = "random";
    model.hidden = pick({256, 512, 768});
    model.vocabulary = 8000;
    model.dtype = DType::fp32;
    for (std::size_t i = 0; i < layers; ++i) {
      AttentionBlock attention;
      attention.heads = pick({4, 8});
      attention.kv_heads = std::min<std::int64_t>(attention.heads, pick({2, 4, 8}));
      attention.head_dim = 64;
      ExpertSpec ffn;
      ffn.width = pick({512, 1024, 2048});
      const std::int64_t experts = pick({1, 4, 8, 16});
      if (experts == 1) {
        model.decoder.push_back({{attention, DenseFfnBlock{ffn}}});
        continue;
      }
      MoeBlock moe;
      moe.experts = {{experts, ffn, ""}};
      moe.router.top_k = static_cast<int>(pick({1, 2, 4}));
      model.decoder.push_back({{attention, moe}});
    }
  }
  return models;
}

}  // namespace moecast
