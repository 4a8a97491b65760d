#pragma once
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>

#include "models/core/dtype.h"
#include "models/core/error.h"
#include "models/core/units.h"
#include "models/routing/expert_cache.h"

namespace moecast {

/// How a CPU or GPU backend organises the expert computation.
enum class KernelStrategy { per_expert_loop, sorted_grouped, capacity_padded, dense_mask };

std::string_view to_string(KernelStrategy strategy);
std::optional<KernelStrategy> find_strategy(std::string_view text);

/// Pipeline stages that take a layer more where the stages do not divide the layers: the first ones, or those just
/// before the last one, which has the head.
enum class ExtraLayers { first, before_last };

/// When experts are fetched: when the router has asked for them, or while the layer before is computed, as if its
/// router were guessed right.
enum class FetchOverlap { none, layer };

std::string_view to_string(FetchOverlap overlap);
std::optional<FetchOverlap> find_fetch_overlap(std::string_view text);

/// Experts that a rank does not hold are fetched when they are used: from the host's memory to a GPU, from the disk to
/// a CPU.
struct ExpertOffload {
  ResidencyPolicy policy = ResidencyPolicy::lru;
  FetchOverlap overlap = FetchOverlap::none;
  std::optional<std::int64_t> resident;  ///< experts of each MoE layer that a rank holds
  std::optional<Bytes> resident_bytes;   ///< or of all layers together; neither: as many as fit
  std::optional<BytesPerSecond> link{};  ///< nullopt: what the profile says
  friend bool operator==(const ExpertOffload&, const ExpertOffload&) = default;
};

/// How a model is spread over devices. world = tp * dp * cp * pp; experts are spread over ep * moe_tp = tp * dp * cp
/// ranks.
struct Deployment {
  int tp = 1;
  int ep = 1;
  int dp = 1;
  int pp = 1;
  std::optional<int> moe_tp;  ///< nullopt: tp * dp * cp / ep
  int threads = 1;            ///< CPU only
  std::string backend;        ///< "onednn", "vllm-0.24.0"; empty = the profile's default
  KernelStrategy strategy = KernelStrategy::sorted_grouped;
  std::optional<DType> dtype;     ///< of weights; overrides the architecture's
  std::optional<DType> kv_dtype;  ///< of the KV cache; nullopt: see cache_dtype
  /// Framework whose all-reduce, which adds the residual and norms, runs inside a node (GPUs); empty: the engine's.
  std::string all_reduce;
  std::int64_t kv_block_tokens = 16;
  int cp = 1;                        ///< context-parallel ranks: share the new tokens of prompts, and the KV cache
  std::optional<int> micro_batches;  ///< that a step passes through the stages in; nullopt: one a stage
  ExtraLayers extra_layers = ExtraLayers::before_last;  ///< the engine's way to split layers
  int redundant_experts = 0;             ///< copies of popular experts beside the model's own, spread over ep with them
  std::optional<ExpertOffload> offload;  ///< nullopt: a rank holds all its experts
  bool eager = false;                    ///< kernels are launched one by one, no graph is replayed (GPUs)
  int draft_tokens = 0;  ///< that layers of multi-token prediction guess; the next step checks them (GPUs)

  friend bool operator==(const Deployment&, const Deployment&) = default;
};

/// Most ranks of one pipeline stage: with 4,096 stages their number is still one of 32 bits.
inline constexpr std::int64_t kMostStageRanks = std::int64_t{1} << 18;

/// Ranks of one pipeline stage: tp * dp * cp. @throws InputError beyond kMostStageRanks.
inline int stage_ranks(const Deployment& d) {
  const std::int64_t ranks = std::int64_t{d.tp} * d.dp * d.cp;
  if (ranks > kMostStageRanks) {
    throw InputError("tp x dp x cp", "is " + std::to_string(ranks) + " ranks",
                     "expected at most " + std::to_string(kMostStageRanks));
  }
  return static_cast<int>(ranks);
}

/// Columns of the head, where ranks do not divide the vocabulary padded as engines pad it: to multiples of 64.
inline std::int64_t padded_vocabulary(std::int64_t vocabulary, int tp) {
  if (vocabulary % tp == 0) return vocabulary;
  const std::int64_t multiple = std::lcm(std::int64_t{64}, std::int64_t{tp});
  return (vocabulary + multiple - 1) / multiple * multiple;
}

/// Ranks that share an expert's matrices. At least 1.
inline int expert_tensor_ranks(const Deployment& d) {
  const int shared = d.ep > 0 ? stage_ranks(d) / d.ep : 1;
  return d.moe_tp.value_or(shared > 1 ? shared : 1);
}

/// Micro-batches that so many sequences of a rank make: no more than sequences, at least 1.
inline std::int64_t micro_batches_of(const Deployment& d, std::int64_t sequences) {
  const std::int64_t wanted = d.micro_batches.value_or(d.pp);
  const std::int64_t most = sequences < wanted ? sequences : wanted;
  return most > 1 ? most : 1;
}

}  // namespace moecast
