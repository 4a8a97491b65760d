#pragma once
#include <cstdint>
#include <vector>

#include "models/architecture/moe.h"
#include "profiler/reference/assignment.h"
#include "profiler/reference/block_runner.h"

namespace moecast {

/// The router of one MoE layer: its network, scores and choice, capacity.
class RouterRunner {
 public:
  RouterRunner(const MoeBlock& block, const BatchShape& step, std::int64_t index, bool training, Kernels& kernels,
               Layout& weights, Layout& scratch);
  /// @param shift [tokens, experts] added to the logits, or empty.
  void plant(std::vector<float> shift) { shift_ = std::move(shift); }
  void fill(Filler& filler, std::int64_t copy, std::byte* weights);
  const TokenAssignment& run(const std::byte* weights, std::byte* scratch, const std::byte* x);
  [[nodiscard]] const TokenAssignment& assignment() const { return assignment_; }
  /// Rows that experts were chosen for in the last run, before capacity.
  [[nodiscard]] const std::vector<std::int64_t>& demand() const { return demand_; }
  [[nodiscard]] std::optional<std::int64_t> slots() const { return slots_; }

 private:
  void run_network(const std::byte* weights, std::byte* scratch, const std::byte* x);
  void add_noise(const std::byte* weights, const std::byte* x);
  void choose(std::span<const float> bias);

  RouterSpec router_;
  CapacitySpec capacity_;
  BatchShape step_;
  std::int64_t index_;
  std::int64_t experts_;
  bool training_;
  Kernels& kernels_;
  std::vector<Linear> network_;
  std::vector<std::size_t> network_bias_;
  Linear noise_;
  std::size_t selection_bias_ = 0;
  std::size_t hidden_rows_ = 0;  // fp32, between layers of an MLP router
  std::size_t active_rows_ = 0;
  std::optional<std::int64_t> slots_;
  std::vector<float> shift_;
  std::vector<float> draws_;
  std::vector<float> logits_;  // [tokens, experts] and slack rows
  std::size_t scores_ = 0;     // tokens * experts
  std::vector<float> noise_rows_;
  TokenAssignment assignment_;
  std::vector<std::int64_t> demand_;
};

}  // namespace moecast
