#include "profiler/reference/moe_runner.h"

#include <algorithm>
#include <cstring>

#include "profiler/cpu/stages.h"
#include "profiler/reference/rows.h"

namespace moecast {
namespace {

std::vector<ExpertSpec> listed_experts(const MoeBlock& block) {
  std::vector<ExpertSpec> out;
  for (const ExpertGroup& group : block.experts) {
    out.insert(out.end(), static_cast<std::size_t>(group.count), group.expert);
  }
  return out;
}

/// Shared experts run as one network of their summed width, as serving code stores them.
ExpertSpec merged(const SharedExperts& shared) {
  ExpertSpec spec = shared.expert;
  spec.width *= shared.count;
  return spec;
}

/// Rows that a layer's dispatched tokens may take in the worst case.
std::int64_t dispatched_rows(const MoeBlock& block, const BatchShape& step, const MoeOptions& options,
                             const RouterRunner& router) {
  const std::int64_t experts = block.expert_count();
  switch (options.strategy) {
    case KernelStrategy::dense_mask: return 0;
    case KernelStrategy::per_expert_loop: return std::min(step.tokens, options.fullest);
    case KernelStrategy::capacity_padded: return experts * router.slots().value_or(options.fullest);
    case KernelStrategy::sorted_grouped: break;
  }
  const bool all = block.router.kind == RouterKind::soft || block.router.kind == RouterKind::expert_choice;
  return step.tokens * (all ? experts : block.router.top_k);
}

}  // namespace

/// Where one run finds its buffers.
struct MoeRunner::Call {
  std::byte* weights;
  std::byte* scratch;
  const std::byte* x;
  float* out;
};

MoeRunner::MoeRunner(const MoeBlock& block, const BatchShape& step, const MoeOptions& options, Kernels& kernels,
                     Layout& weights, Layout& scratch)
    : strategy_(options.strategy),
      step_(step),
      experts_count_(block.expert_count()),
      block_(options.block),
      kernels_(kernels),
      router_(block, step, options.block, options.training, kernels, weights, scratch) {
  const std::vector<ExpertSpec> specs = listed_experts(block);
  for (std::size_t e = 0; e < specs.size(); ++e) {
    const FfnKeys keys{.block = options.block, .expert = static_cast<std::int64_t>(e)};
    experts_.emplace_back(specs[e], step.hidden, Stage::experts, keys, kernels, weights);
  }
  width_ = experts_.front().outputs();
  router_.plant(options.planted_shift);
  const std::int64_t rows = dispatched_rows(block, step, options, router_);
  const std::int64_t output_rows = strategy_ == KernelStrategy::dense_mask ? step.tokens * experts_count_ : rows;
  const std::int64_t fullest =
      strategy_ == KernelStrategy::dense_mask ? step.tokens : std::min(step.tokens, options.fullest);
  permuted_ = scratch.reserve(rows, step.hidden, kernels.element_bytes());
  outputs_ = scratch.reserve(output_rows, width_, sizeof(float));
  expert_buffers_ = reserve_ffn(scratch, specs, fullest, step.hidden, kernels.element_bytes());
  if (block.shared.count > 0) {
    const FfnKeys keys{.up = Part::shared_up, .down = Part::shared_down, .block = options.block};
    shared_.emplace(merged(block.shared), step.hidden, Stage::shared, keys, kernels, weights);
    if (block.shared.gate) {
      shared_gate_ = {.n = 1, .k = step.hidden, .offset = weights.reserve(kernels.packed_bytes(1, step.hidden))};
      gate_.resize(static_cast<std::size_t>(step.tokens + Layout::kSlackRows));
    }
  }
  if (block.dense_residual) {
    const FfnKeys keys{.up = Part::residual_up, .down = Part::residual_down, .block = options.block};
    residual_.emplace(*block.dense_residual, step.hidden, Stage::shared, keys, kernels, weights);
  }
  if (shared_ || residual_) {
    const ExpertSpec residual = block.dense_residual.value_or(ExpertSpec{});
    beside_ = scratch.reserve(step.tokens, step.hidden, sizeof(float));
    beside_buffers_ =
        reserve_ffn(scratch, {merged(block.shared), residual}, step.tokens, step.hidden, kernels.element_bytes());
  }
  offsets_.resize(static_cast<std::size_t>(experts_count_ + 1));
}

void MoeRunner::fill(Filler& filler, std::int64_t copy, std::byte* weights) {
  router_.fill(filler, copy, weights);
  for (const FfnRunner& expert : experts_) expert.fill(filler, copy, weights);
  if (shared_) shared_->fill(filler, copy, weights);
  if (shared_gate_.n > 0) {
    filler.linear(shared_gate_, {.part = Part::shared_gate, .copy = copy, .block = block_}, weights);
  }
  if (residual_) residual_->fill(filler, copy, weights);
}

void MoeRunner::run(std::byte* weights, std::byte* scratch, const std::byte* x, float* out) {
  const TokenAssignment& assignment = router_.run(weights, scratch, x);
  kernels_.counters.routed += assignment.demanded - assignment.dropped;
  const Call call{weights, scratch, x, out};
  switch (strategy_) {
    case KernelStrategy::sorted_grouped: run_sorted(call, assignment); break;
    case KernelStrategy::per_expert_loop: run_loop(call, assignment); break;
    case KernelStrategy::capacity_padded: run_padded(call, assignment); break;
    case KernelStrategy::dense_mask: run_dense(call, assignment); break;
  }
  run_beside(call);
}

void MoeRunner::run_experts(const Call& call, const std::int32_t* offsets, const std::byte* rows, float* y) {
  const std::size_t row_bytes = static_cast<std::size_t>(step_.hidden) * kernels_.element_bytes();
  for (std::size_t e = 0; e < experts_.size(); ++e) {
    const std::int32_t first = offsets[e];
    const std::int32_t count = offsets[e + 1] - first;
    if (count == 0) continue;
    experts_[e].run(call.weights, call.scratch, expert_buffers_, count,
                    rows + static_cast<std::size_t>(first) * row_bytes, y + first * width_);
  }
}

void MoeRunner::run_sorted(const Call& call, const TokenAssignment& assignment) {
  position_.resize(assignment.expert_of.size());
  sort_by_expert(assignment.expert_of, experts_count_, position_, offsets_);
  const std::int64_t rows = offsets_.back();
  std::byte* permuted = call.scratch + permuted_;
  auto* y = reinterpret_cast<float*>(call.scratch + outputs_);
  kernels_.permute(call.x, permuted, position_, step_.tokens, assignment.slots, step_.hidden, rows);
  run_experts(call, offsets_.data(), permuted, y);
  kernels_.unpermute(y, call.out, position_, assignment.weights, step_.tokens, assignment.slots, width_, rows);
}

void MoeRunner::run_loop(const Call& call, const TokenAssignment& assignment) {
  position_.resize(assignment.expert_of.size());
  sort_by_expert(assignment.expert_of, experts_count_, position_, offsets_);
  token_of_.resize(static_cast<std::size_t>(offsets_.back()));
  weight_of_.resize(token_of_.size());
  for (std::size_t i = 0; i < position_.size(); ++i) {
    if (position_[i] < 0) continue;
    const auto row = static_cast<std::size_t>(position_[i]);
    token_of_[row] = static_cast<std::int32_t>(i / static_cast<std::size_t>(assignment.slots));
    weight_of_[row] = assignment.weights[i];
  }
  std::byte* gathered = call.scratch + permuted_;
  auto* y = reinterpret_cast<float*>(call.scratch + outputs_);
  const auto out_bytes = static_cast<std::size_t>(step_.tokens * width_) * sizeof(float);
  std::memset(call.out, 0, out_bytes);
  kernels_.count(Stage::combine, 0, static_cast<std::int64_t>(out_bytes));
  for (std::size_t e = 0; e < experts_.size(); ++e) {
    const auto first = static_cast<std::size_t>(offsets_[e]);
    const std::size_t count = static_cast<std::size_t>(offsets_[e + 1]) - first;
    if (count == 0) continue;
    const std::span<const std::int32_t> tokens(token_of_.data() + first, count);
    kernels_.gather(call.x, gathered, tokens, step_.hidden);
    experts_[e].run(call.weights, call.scratch, expert_buffers_, static_cast<std::int64_t>(count), gathered, y);
    kernels_.scatter_add(y, call.out, tokens, std::span<const float>(weight_of_.data() + first, count), width_);
  }
}

std::int64_t MoeRunner::padded_slots(const TokenAssignment& assignment) const {
  return router_.slots().value_or(*std::ranges::max_element(assignment.rows));
}

void MoeRunner::run_padded(const Call& call, const TokenAssignment& assignment) {
  const std::int64_t slots = padded_slots(assignment);
  const std::size_t row_bytes = static_cast<std::size_t>(step_.hidden) * kernels_.element_bytes();
  position_.resize(assignment.expert_of.size());
  sort_by_expert(assignment.expert_of, experts_count_, position_, offsets_);
  const std::int64_t rows = offsets_.back();
  for (std::size_t i = 0; i < position_.size(); ++i) {
    if (position_[i] < 0) continue;
    const std::int32_t expert = assignment.expert_of[i];
    position_[i] += static_cast<std::int32_t>(expert * slots) - offsets_[static_cast<std::size_t>(expert)];
  }
  std::byte* batch = call.scratch + permuted_;
  auto* y = reinterpret_cast<float*>(call.scratch + outputs_);
  kernels_.permute(call.x, batch, position_, step_.tokens, assignment.slots, step_.hidden, rows);
  const std::int64_t empty = experts_count_ * slots - rows;
  for (std::size_t e = 0; e < experts_.size(); ++e) {
    const std::int64_t used = offsets_[e + 1] - offsets_[e];
    std::byte* first_empty = batch + static_cast<std::size_t>(static_cast<std::int64_t>(e) * slots + used) * row_bytes;
    std::memset(first_empty, 0, static_cast<std::size_t>(slots - used) * row_bytes);
  }
  kernels_.count(Stage::dispatch, 0, empty * static_cast<std::int64_t>(row_bytes));
  for (std::size_t e = 0; e <= experts_.size(); ++e) {
    offsets_[e] = static_cast<std::int32_t>(static_cast<std::int64_t>(e) * slots);
  }
  run_experts(call, offsets_.data(), batch, y);
  kernels_.counters.padded += empty;
  kernels_.unpermute(y, call.out, position_, assignment.weights, step_.tokens, assignment.slots, width_, rows);
}

void MoeRunner::run_dense(const Call& call, const TokenAssignment& assignment) {
  auto* y = reinterpret_cast<float*>(call.scratch + outputs_);
  const auto experts = static_cast<std::size_t>(experts_count_);
  position_.resize(static_cast<std::size_t>(step_.tokens) * experts);
  weight_of_.assign(position_.size(), 0);
  for (std::size_t i = 0; i < position_.size(); ++i) {
    position_[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i % experts) * step_.tokens +
                                             static_cast<std::int64_t>(i / experts));
  }
  for (std::size_t i = 0; i < assignment.expert_of.size(); ++i) {
    if (assignment.expert_of[i] < 0) continue;
    const std::size_t token = i / static_cast<std::size_t>(assignment.slots);
    weight_of_[token * experts + static_cast<std::size_t>(assignment.expert_of[i])] = assignment.weights[i];
  }
  for (std::size_t e = 0; e < experts; ++e) {
    experts_[e].run(call.weights, call.scratch, expert_buffers_, step_.tokens, call.x,
                    y + static_cast<std::int64_t>(e) * step_.tokens * width_);
  }
  kernels_.counters.padded += step_.tokens * experts_count_ - (assignment.demanded - assignment.dropped);
  kernels_.unpermute(y, call.out, position_, weight_of_, step_.tokens, static_cast<int>(experts), width_,
                     step_.tokens * experts_count_);
}

void MoeRunner::run_beside(const Call& call) {
  auto* y = reinterpret_cast<float*>(call.scratch + beside_);
  const std::int64_t size = step_.tokens * step_.hidden;
  if (shared_) {
    shared_->run(call.weights, call.scratch, beside_buffers_, step_.tokens, call.x, y);
    if (shared_gate_.n > 0) {
      kernels_.multiply(Stage::shared, shared_gate_, call.weights, step_.tokens, call.x, gate_.data());
      add_gated_rows(y, gate_.data(), call.out, step_.tokens, step_.hidden, kernels_.threads());
      kernels_.count(Stage::shared, size * 8, size * 4);
    } else {
      kernels_.add(Stage::shared, y, call.out, size);
    }
  }
  if (residual_) {
    residual_->run(call.weights, call.scratch, beside_buffers_, step_.tokens, call.x, y);
    kernels_.add(Stage::shared, y, call.out, size);
  }
}

Matrix MoeRunner::expert_output(const std::byte* scratch, std::int64_t expert) const {
  if (strategy_ != KernelStrategy::dense_mask) return {};
  Matrix out(step_.tokens, width_);
  const auto* y = reinterpret_cast<const float*>(scratch + outputs_) + expert * step_.tokens * width_;
  std::copy_n(y, out.values.size(), out.values.begin());
  return out;
}

}  // namespace moecast
