#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "models/core/dtype.h"

namespace moecast {

/// How a CPU or GPU backend organises the expert computation.
enum class KernelStrategy { per_expert_loop, sorted_grouped, capacity_padded, dense_mask };

std::string_view to_string(KernelStrategy strategy);
std::optional<KernelStrategy> find_strategy(std::string_view text);

/// How a model is spread over devices. world = tp * dp * pp; experts are spread over ep * moe_tp = tp * dp ranks.
struct Deployment {
  int tp = 1;
  int ep = 1;
  int dp = 1;
  int pp = 1;
  std::optional<int> moe_tp;  ///< nullopt: tp * dp / ep
  int threads = 1;            ///< CPU only
  std::string backend;        ///< "onednn", "vllm-0.24.0"; empty = the profile's default
  KernelStrategy strategy = KernelStrategy::sorted_grouped;
  std::optional<DType> dtype;  ///< overrides the architecture's
  std::int64_t kv_block_tokens = 16;
};

}  // namespace moecast
