#pragma once
#include "models/architecture/attention.h"
#include "profiler/reference/block_runner.h"
#include "profiler/reference/rows.h"

namespace moecast {

/// qkv product, rotary positions and KV cache, causal attention, output product.
class AttentionRunner : public BlockRunner {
 public:
  AttentionRunner(const AttentionBlock& block, const BatchShape& step, std::int64_t index, Kernels& kernels,
                  Layout& weights, Layout& scratch);
  void fill(Filler& filler, std::int64_t copy, std::byte* weights) override;
  void run(std::byte* weights, std::byte* scratch, const std::byte* x, float* out) override;

 private:
  void fill_cache(const Filler& filler, const WeightKey& key, std::byte* cache) const;

  AttentionBlock block_;
  BatchShape step_;
  std::int64_t index_;
  Kernels& kernels_;
  RopeShape rope_;
  RopeTable table_;
  Linear qkv_;
  Linear out_;
  std::size_t keys_ = 0;  // KV caches lie beside the weights: each copy has its own
  std::size_t values_ = 0;
  std::size_t qkv_rows_ = 0;
  std::size_t q_rows_ = 0;
  std::size_t mixed_ = 0;
};

}  // namespace moecast
