#pragma once
#include "models/architecture/architecture.h"
#include "models/core/units.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"

namespace moecast {

/// Share of a device's memory that engines use: the rest is for others, and for what their allocator loses.
inline constexpr double kUsableMemory = 0.9;

/// What one rank has to hold, before any latency is asked for.
struct MemoryBreakdown {
  Bytes weights;            ///< by precision: routed experts in their own where they have one
  Bytes kv_cache;           ///< in whole blocks of Deployment::kv_block_tokens, constant states included
  Bytes activations;        ///< the widest layer of the step, reused by all layers
  Bytes workspace;          ///< scores, positions and rows in flight of the MoE layer
  Bytes gradients;          ///< training: of trained weights
  Bytes optimizer_states;   ///< training: fp32 copies of trained weights included
  Bytes saved_activations;  ///< training: kept from the forward to the backward pass of a micro-batch
  [[nodiscard]] Bytes total() const {
    return weights + kv_cache + activations + workspace + gradients + optimizer_states + saved_activations;
  }
};

/// Format of the KV cache: what the deployment or the model says, else that of activations, which is bf16 where weights
/// are stored in fewer bits.
DType cache_dtype(const Architecture& architecture, const Deployment& deployment);

/// Tensor parallelism splits attention and dense networks, experts are spread over ep * moe_tp ranks, dp and cp copy
/// everything but the experts, cp splits the cache. Router, norms and shared experts' gates are on every rank, as are
/// the low-rank rows of latent attention and its indexer; a KV head is the least that a rank holds. Pipeline
/// stages hold their layers, the first one the embedding, the last one the head: the fullest stage is what is returned.
/// Where experts are fetched (Deployment::offload with `resident`), weights are those that stay, and the workspace has
/// two places more.
/// @throws InputError when a degree does not divide what it splits, or a stage would have no layer.
MemoryBreakdown memory_per_rank(const Architecture& architecture, const Deployment& deployment,
                                const Workload& workload);

}  // namespace moecast
