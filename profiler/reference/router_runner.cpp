#include "profiler/reference/router_runner.h"

#include <algorithm>
#include <cmath>

#include "models/routing/capacity.h"
#include "profiler/cpu/router.h"

namespace moecast {

RouterRunner::RouterRunner(const MoeBlock& block, const BatchShape& step, std::int64_t index, bool training,
                           Kernels& kernels, Layout& weights, Layout& scratch)
    : router_(block.router),
      capacity_(block.capacity),
      step_(step),
      index_(index),
      experts_(block.expert_count()),
      training_(training),
      kernels_(kernels) {
  if (router_.kind == RouterKind::soft) router_.top_k = static_cast<int>(experts_);
  std::vector<std::int64_t> widths =
      router_.network == RouterNetwork::mlp ? router_.mlp_widths : std::vector<std::int64_t>{};
  widths.push_back(experts_);
  std::int64_t inputs = step.hidden;
  for (const std::int64_t width : widths) {
    network_.push_back({.n = width, .k = inputs, .offset = weights.reserve(kernels.packed_bytes(width, inputs))});
    network_bias_.push_back(router_.linear_bias ? weights.reserve(static_cast<std::size_t>(width) * sizeof(float)) : 0);
    inputs = width;
  }
  if (training && router_.noise == NoiseKind::learned_gaussian) {
    noise_ = {.n = experts_, .k = step.hidden, .offset = weights.reserve(kernels.packed_bytes(experts_, step.hidden))};
  }
  if (router_.selection_bias) selection_bias_ = weights.reserve(static_cast<std::size_t>(experts_) * sizeof(float));
  const std::int64_t widest = *std::ranges::max_element(widths);
  hidden_rows_ = scratch.reserve(step.tokens, widest, sizeof(float));
  active_rows_ = scratch.reserve(step.tokens, widest, kernels.element_bytes());
  slots_ = capacity_slots(capacity_, step.tokens, router_.top_k, experts_);
  scores_ = static_cast<std::size_t>(step.tokens * experts_);
  logits_.resize(scores_ + static_cast<std::size_t>(Layout::kSlackRows * experts_));
  if (training) noise_rows_.resize(logits_.size());
  assignment_.tokens = step.tokens;
  assignment_.experts = experts_;
  demand_.resize(static_cast<std::size_t>(experts_));
}

void RouterRunner::fill(Filler& filler, std::int64_t copy, std::byte* weights) {
  const WeightSource& source = filler.source();
  for (std::size_t layer = 0; layer < network_.size(); ++layer) {
    WeightKey key{.part = Part::router, .copy = copy, .block = index_, .index = static_cast<std::int64_t>(layer)};
    filler.linear(network_[layer], key, weights);
    key.part = Part::router_bias;
    if (router_.linear_bias) {
      Filler::floats(source.draw(key, 1, network_[layer].n, kBiasAmplitude), weights + network_bias_[layer]);
    }
  }
  if (router_.selection_bias) {
    const WeightKey key{.part = Part::selection_bias, .copy = copy, .block = index_};
    Filler::floats(source.draw(key, 1, experts_, kSelectionBiasAmplitude), weights + selection_bias_);
  }
  if (noise_.n > 0) filler.linear(noise_, {.part = Part::noise, .copy = copy, .block = index_}, weights);
  if (training_) {
    draws_ = source.normal({.part = Part::noise_draws, .block = index_}, step_.tokens, experts_).values;
  }
}

void RouterRunner::run_network(const std::byte* weights, std::byte* scratch, const std::byte* x) {
  auto* hidden = reinterpret_cast<float*>(scratch + hidden_rows_);
  for (std::size_t layer = 0; layer < network_.size(); ++layer) {
    const Linear& linear = network_[layer];
    const bool last = layer + 1 == network_.size();
    float* y = last ? logits_.data() : hidden;
    kernels_.multiply(Stage::router, linear, weights, step_.tokens, x, y);
    if (router_.linear_bias) {
      const auto* bias = reinterpret_cast<const float*>(weights + network_bias_[layer]);
      kernels_.add_bias(Stage::router, bias, y, step_.tokens, linear.n);
    }
    if (last) return;
    const ExpertSpec relu{.width = linear.n, .gated = false, .activation = Activation::relu};
    kernels_.activate(Stage::router, hidden, scratch + active_rows_, step_.tokens, relu);
    x = scratch + active_rows_;
  }
}

void RouterRunner::add_noise(const std::byte* weights, const std::byte* x) {
  std::ranges::fill(noise_rows_, static_cast<float>(router_.noise_strength));
  if (noise_.n > 0) {
    kernels_.multiply(Stage::router, noise_, weights, step_.tokens, x, noise_rows_.data());
    for (float& value : noise_rows_) {
      value = std::log1p(std::exp(value)) + static_cast<float>(router_.noise_strength);
    }
  }
  for (std::size_t i = 0; i < scores_; ++i) logits_[i] += draws_[i] * noise_rows_[i];
  const auto size = static_cast<std::int64_t>(scores_ * sizeof(float));
  kernels_.count(Stage::router, 3 * size, size);
}

void RouterRunner::choose(std::span<const float> bias) {
  TokenAssignment& out = assignment_;
  out.slots = router_.top_k;
  out.expert_of.resize(static_cast<std::size_t>(step_.tokens * out.slots));
  out.weights.resize(out.expert_of.size());
  const std::span<const float> logits(logits_.data(), scores_);
  route_top_k(router_, logits, bias, shift_, step_.tokens, experts_, out.expert_of, out.weights);
  std::ranges::fill(demand_, 0);
  for (const std::int32_t expert : out.expert_of) ++demand_[static_cast<std::size_t>(expert)];
  out.rows = demand_;
  out.demanded = step_.tokens * out.slots;
  out.dropped = 0;
  if (!slots_) return;
  if (capacity_.overflow == Overflow::next_best && !shift_.empty()) {
    for (std::size_t i = 0; i < scores_; ++i) logits_[i] += shift_[i];
  }
  apply_capacity(router_, capacity_, *slots_, logits, bias, out);
}

const TokenAssignment& RouterRunner::run(const std::byte* weights, std::byte* scratch, const std::byte* x) {
  run_network(weights, scratch, x);
  if (training_) add_noise(weights, x);
  const auto* bias = reinterpret_cast<const float*>(weights + selection_bias_);
  if (router_.kind == RouterKind::expert_choice) {
    const std::int64_t even = (step_.tokens * router_.top_k + experts_ - 1) / experts_;
    choose_tokens(router_, std::span<const float>(logits_.data(), scores_),
                  slots_.value_or(std::min(even, step_.tokens)), assignment_);
    demand_ = assignment_.rows;
  } else {
    choose(std::span(bias, router_.selection_bias ? static_cast<std::size_t>(experts_) : 0));
  }
  const auto logit_bytes = static_cast<std::int64_t>(scores_ * sizeof(float));
  const auto choice_bytes = static_cast<std::int64_t>(assignment_.expert_of.size() * 2 * sizeof(float));
  kernels_.count(Stage::router, logit_bytes, choice_bytes);
  kernels_.counters.demanded += assignment_.demanded;
  kernels_.counters.dropped += assignment_.dropped;
  return assignment_;
}

}  // namespace moecast
