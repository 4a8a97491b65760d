#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "models/plan/deployment.h"
#include "profiler/reference/block_runner.h"
#include "profiler/reference/ffn_runner.h"
#include "profiler/reference/matrix.h"
#include "profiler/reference/router_runner.h"

namespace moecast {

struct MoeOptions {
  std::int64_t block = 0;  ///< number of the block in the model
  KernelStrategy strategy = KernelStrategy::sorted_grouped;
  bool training = false;
  std::vector<float> planted_shift;  ///< [tokens, experts], or empty: natural routing
  std::int64_t fullest = 0;          ///< rows that an expert may get at most
};

/// One MoE layer: router, dispatch, experts, combine; shared experts and a parallel dense network beside them.
class MoeRunner : public BlockRunner {
 public:
  MoeRunner(const MoeBlock& block, const BatchShape& step, const MoeOptions& options, Kernels& kernels, Layout& weights,
            Layout& scratch);
  void fill(Filler& filler, std::int64_t copy, std::byte* weights) override;
  void run(std::byte* weights, std::byte* scratch, const std::byte* x, float* out) override;

  [[nodiscard]] const RouterRunner& router() const { return router_; }
  [[nodiscard]] std::int64_t output_width() const { return width_; }
  /// Output [tokens, width] of one expert for every token in the last run; dense_mask only.
  [[nodiscard]] Matrix expert_output(const std::byte* scratch, std::int64_t expert) const;

 private:
  struct Call;
  void run_sorted(const Call& call, const TokenAssignment& assignment);
  void run_loop(const Call& call, const TokenAssignment& assignment);
  void run_padded(const Call& call, const TokenAssignment& assignment);
  void run_dense(const Call& call, const TokenAssignment& assignment);
  void run_experts(const Call& call, const std::int32_t* offsets, const std::byte* rows, float* y);
  void run_beside(const Call& call);
  [[nodiscard]] std::int64_t padded_slots(const TokenAssignment& assignment) const;

  KernelStrategy strategy_;
  BatchShape step_;
  std::int64_t experts_count_;
  std::int64_t block_;
  Kernels& kernels_;
  RouterRunner router_;
  std::vector<FfnRunner> experts_;
  std::int64_t width_ = 0;
  std::optional<FfnRunner> shared_;
  std::optional<FfnRunner> residual_;
  Linear shared_gate_;
  FfnScratch expert_buffers_;
  FfnScratch beside_buffers_;
  std::size_t permuted_ = 0;
  std::size_t outputs_ = 0;
  std::size_t beside_ = 0;
  std::vector<std::int32_t> position_;
  std::vector<std::int32_t> offsets_;
  std::vector<std::int32_t> token_of_;
  std::vector<float> weight_of_;
  std::vector<float> gate_;
};

}  // namespace moecast
