#include "profiler/reference/ffn_runner.h"

#include <algorithm>
#include <cstring>

namespace moecast {

FfnScratch reserve_ffn(Layout& scratch, const std::vector<ExpertSpec>& specs, std::int64_t rows, std::int64_t hidden,
                       std::size_t element_bytes) {
  std::int64_t up = 0;
  std::int64_t width = 0;
  bool stacked = false;
  for (const ExpertSpec& spec : specs) {
    up = std::max(up, spec.gated ? 2 * spec.width : spec.width);
    width = std::max(width, spec.width);
    stacked = stacked || spec.depth > 1;
  }
  FfnScratch out;
  out.up = scratch.reserve(rows, up, sizeof(float));
  out.active = scratch.reserve(rows, width, element_bytes);
  if (stacked) {
    out.between = scratch.reserve(rows, hidden, sizeof(float));
    out.between_in = scratch.reserve(rows, hidden, element_bytes);
  }
  return out;
}

FfnRunner::FfnRunner(const ExpertSpec& spec, std::int64_t inputs, Stage stage, const FfnKeys& keys, Kernels& kernels,
                     Layout& weights)
    : spec_(spec),
      inputs_(inputs),
      outputs_(spec.output != 0 ? spec.output : inputs),
      stage_(stage),
      keys_(keys),
      kernels_(kernels) {
  if (spec.kind == ExpertKind::identity) return;
  for (int depth = 0; depth < spec.depth; ++depth) {
    Level level;
    level.up = {.n = spec.gated ? 2 * spec.width : spec.width, .k = inputs};
    level.down = {.n = outputs_, .k = spec.width};
    level.up.offset = weights.reserve(kernels.packed_bytes(level.up.n, level.up.k));
    level.down.offset = weights.reserve(kernels.packed_bytes(level.down.n, level.down.k));
    if (spec.bias) {
      level.up_bias = weights.reserve(static_cast<std::size_t>(level.up.n) * sizeof(float));
      level.down_bias = weights.reserve(static_cast<std::size_t>(level.down.n) * sizeof(float));
    }
    levels_.push_back(level);
  }
}

void FfnRunner::fill(Filler& filler, std::int64_t copy, std::byte* weights) const {
  for (std::size_t depth = 0; depth < levels_.size(); ++depth) {
    const Level& level = levels_[depth];
    WeightKey key{.part = keys_.up,
                  .copy = copy,
                  .block = keys_.block,
                  .expert = keys_.expert,
                  .index = static_cast<std::int64_t>(depth)};
    filler.linear(level.up, key, weights);
    key.part = keys_.down;
    filler.linear(level.down, key, weights);
    if (!spec_.bias) continue;
    key.part = keys_.up_bias;
    Filler::floats(filler.source().draw(key, 1, level.up.n, kBiasAmplitude), weights + level.up_bias);
    key.part = keys_.down_bias;
    Filler::floats(filler.source().draw(key, 1, level.down.n, kBiasAmplitude), weights + level.down_bias);
  }
}

void FfnRunner::run(const std::byte* weights, std::byte* scratch, const FfnScratch& buffers, std::int64_t rows,
                    const std::byte* x, float* out) const {
  if (levels_.empty()) return copy_through(rows, x, out);
  auto* up = reinterpret_cast<float*>(scratch + buffers.up);
  std::byte* active = scratch + buffers.active;
  for (std::size_t depth = 0; depth < levels_.size(); ++depth) {
    const Level& level = levels_[depth];
    const bool last = depth + 1 == levels_.size();
    float* y = last ? out : reinterpret_cast<float*>(scratch + buffers.between);
    kernels_.multiply(stage_, level.up, weights, rows, x, up);
    if (spec_.bias) {
      kernels_.add_bias(stage_, reinterpret_cast<const float*>(weights + level.up_bias), up, rows, level.up.n);
    }
    kernels_.activate(stage_, up, active, rows, spec_);
    kernels_.multiply(stage_, level.down, weights, rows, active, y);
    if (spec_.bias) {
      kernels_.add_bias(stage_, reinterpret_cast<const float*>(weights + level.down_bias), y, rows, level.down.n);
    }
    if (last) return;
    kernels_.convert(stage_, y, scratch + buffers.between_in, rows * inputs_);
    x = scratch + buffers.between_in;
  }
}

void FfnRunner::copy_through(std::int64_t rows, const std::byte* x, float* out) const {
  const auto size = static_cast<std::size_t>(rows * inputs_);
  if (kernels_.dtype() == DType::fp32) {
    std::memcpy(out, x, size * sizeof(float));
  } else {
    const auto* bits = reinterpret_cast<const std::uint16_t*>(x);
    for (std::size_t i = 0; i < size; ++i) {
      const std::uint32_t wide = static_cast<std::uint32_t>(bits[i]) << 16;
      std::memcpy(out + i, &wide, sizeof(float));
    }
  }
  const auto read = static_cast<std::int64_t>(size * kernels_.element_bytes());
  kernels_.count(stage_, read, static_cast<std::int64_t>(size * sizeof(float)));
}

DenseRunner::DenseRunner(const ExpertSpec& spec, const BatchShape& step, std::int64_t block, Kernels& kernels,
                         Layout& weights, Layout& scratch)
    : ffn_(spec, step.hidden, Stage::dense, {.up = Part::ffn_up, .down = Part::ffn_down, .block = block}, kernels,
           weights),
      tokens_(step.tokens),
      buffers_(reserve_ffn(scratch, {spec}, step.tokens, step.hidden, kernels.element_bytes())) {}

}  // namespace moecast
