#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "sim/analytic/analytic.h"
#include "sim/analytic/moe_batch.h"

namespace moecast {
namespace {

using Lane = GemmLanes::Lane;
constexpr std::size_t kBlock = kLanes;
constexpr std::size_t kGroups = kBlock * RowClasses::kMostGroups;

/// Kinds of operators whose errors are correlated by less than one.
enum Kind : std::size_t { kRouterGemm, kExpertGemms, kScores, kPermute, kActivation, kUnpermute, kKinds };

}  // namespace

/// kLanes layers, one a lane, and the groups of rows of all of them one after another.
struct MoeBatch::Block {
  std::size_t count = 0;
  std::array<std::size_t, kBlock + 1> first_group{};
  std::array<float, kGroups> rows;  ///< written up to the last of first_group
  std::array<float, kGroups> experts_of_group;

  Lane hidden, width, up_columns, experts, top_k, tokens, copies;
  std::array<bool, kBlock> gated{};
  Lane footprint{}, layer_footprint{}, expert_sum{}, row_sum{};
  Lane one_expert{}, expert_input{}, expert_output{};  ///< bytes of one expert; between uses of its input and result

  Lane memory{}, compute{}, routing{}, experts_s{};
  std::array<Lane, kKinds> spread{};  ///< seconds of half width
  std::array<bool, kBlock> extrapolated{};
};

bool MoeBatch::fill(const MoeColumns& layers, std::size_t first, Block& block) const noexcept {
  block.count = std::min(kBlock, layers.size() - first);
  for (std::size_t i = 0; i < block.count; ++i) {
    const std::size_t row = first + i;
    block.gated[i] = layers.gated.empty() || layers.gated[row] != 0;
    block.hidden[i] = static_cast<float>(layers.hidden[row]);
    block.width[i] = static_cast<float>(layers.intermediate[row]);
    block.up_columns[i] = block.width[i] * (block.gated[i] ? 2.0F : 1.0F);
    block.experts[i] = static_cast<float>(layers.experts[row]);
    block.top_k[i] = static_cast<float>(layers.top_k[row]);
    block.tokens[i] = static_cast<float>(layers.tokens[row]);
    block.copies[i] = layers.copies.empty() ? 1.0F : static_cast<float>(layers.copies[row]);
    const float capacity =
        layers.capacity_factor.empty() ? std::numeric_limits<float>::infinity() : layers.capacity_factor[row];
    const std::size_t load = layers.load.empty() ? 0 : static_cast<std::size_t>(layers.load[row]);
    if (!fill_rows(i, capacity, load, block)) return false;
  }
  fill_footprints(block);
  return true;
}

bool MoeBatch::fill_rows(std::size_t lane, float capacity, std::size_t load, Block& block) const noexcept {
  const auto experts = static_cast<std::int64_t>(block.experts[lane]);
  const auto top_k = static_cast<std::int64_t>(block.top_k[lane]);
  if (experts > most_experts_ || top_k > most_top_k_ || load >= loads_.size()) return false;
  const std::int32_t index = class_of_[class_index(load, experts, top_k)];
  if (index < 0) return false;
  const RowClasses& classes = classes_[static_cast<std::size_t>(index)];
  const double tokens = block.tokens[lane];
  double limit = std::numeric_limits<double>::infinity();
  if (std::isfinite(capacity)) {
    limit = std::ceil(
        static_cast<double>(capacity) * tokens * static_cast<double>(top_k) / static_cast<double>(experts) - 1e-9);
    limit = std::min(limit, tokens);
  }
  std::array<RowGroup, RowClasses::kMostGroups> groups;
  int count = 1;
  if (strategy_ == KernelStrategy::capacity_padded) {
    groups[0] = {std::isfinite(limit) ? limit : fullest_of(classes, tokens), block.experts[lane]};
  } else if (strategy_ == KernelStrategy::dense_mask) {
    groups[0] = {tokens, block.experts[lane]};
    limit = tokens;  // every expert computes every token, dropped or not
  } else {
    count = rows_of_classes(classes, tokens, groups);
  }
  std::size_t at = block.first_group[lane];
  for (int g = 0; g < count; ++g, ++at) {
    const RowGroup& group = groups[static_cast<std::size_t>(g)];
    block.rows[at] = static_cast<float>(std::min(group.rows, limit));
    block.experts_of_group[at] = static_cast<float>(group.experts);
    block.expert_sum[lane] += block.experts_of_group[at];
    block.row_sum[lane] += block.rows[at] * block.experts_of_group[at];
  }
  block.first_group[lane + 1] = at;
  return true;
}

/// Bytes between two uses of a weight, of a layer's buffers and of an expert's rows: as GraphBuilder counts them.
void MoeBatch::fill_footprints(Block& block) const noexcept {
  const bool masked = strategy_ == KernelStrategy::dense_mask;
  const bool looped = strategy_ == KernelStrategy::per_expert_loop;
  const auto stored = [&](float n, float k) {
    return std::ceil(n / stored_columns_) * stored_columns_ * k * weight_bytes_;
  };
  for (std::size_t i = 0; i < block.count; ++i) {
    const float hidden = block.hidden[i];
    const float width = block.width[i];
    const float rows_bytes = block.tokens[i] * hidden * element_bytes_;
    const float expert = stored(block.up_columns[i], hidden) + stored(hidden, width);
    const float weights = stored(block.experts[i], hidden) + block.expert_sum[i] * expert;
    const float activations = rows_bytes * (masked ? 1.0F : 2.0F) + 4 * block.tokens[i] * block.experts[i] +
                              block.row_sum[i] * hidden * (element_bytes_ + 4) + 4 * block.tokens[i] * hidden;
    block.layer_footprint[i] = weights + activations;
    block.footprint[i] = block.copies[i] * weights + activations;
    const float row = (hidden + width) * element_bytes_ + 4 * (block.up_columns[i] + hidden);
    const float one = expert + block.row_sum[i] / std::max(1.0F, block.expert_sum[i]) * row;
    block.one_expert[i] = one;
    if (looped) {
      block.expert_input[i] = 0;
    } else if (masked) {
      block.expert_input[i] = one;
    } else {
      block.expert_input[i] =
          0.5F * (block.row_sum[i] * hidden * element_bytes_ + block.expert_sum[i] * expert + block.row_sum[i] * row);
    }
    block.expert_output[i] = looped ? one : block.layer_footprint[i];
  }
}

void MoeBatch::cost_gemms(Block& block) const noexcept {
  GemmLanes::Calls calls;
  GemmLanes::Costs costs;
  for (Lane* column : {&calls.m, &calls.n, &calls.k, &calls.footprint_bytes, &calls.input_footprint_bytes,
                       &calls.output_footprint_bytes}) {
    column->fill(1);
  }
  std::array<std::size_t, kLanes> layer{};
  Lane times{};  ///< experts that make this call; 0 = the router
  std::size_t used = 0;
  const auto flush = [&] {
    gemms_.cost(calls, static_cast<int>(used), costs);
    for (std::size_t q = 0; q < used; ++q) {
      const std::size_t i = layer[q];
      const float seconds = costs.seconds[q] * (times[q] > 0 ? times[q] : 1.0F);
      block.extrapolated[i] = block.extrapolated[i] || costs.extrapolated[q];
      block.spread[times[q] > 0 ? kExpertGemms : kRouterGemm][i] += seconds * costs.half_width[q];
      if (times[q] > 0) {
        block.experts_s[i] += seconds;
        block.memory[i] += seconds * costs.memory_ratio[q];
        block.compute[i] += seconds * costs.compute_ratio[q];
      } else {
        block.routing[i] += seconds;
      }
    }
    used = 0;
  };
  const auto ask = [&](std::size_t i, float m, float n, float k, float input, float output, float experts) {
    calls.m[used] = m;
    calls.n[used] = n;
    calls.k[used] = k;
    calls.footprint_bytes[used] = block.footprint[i];
    calls.input_footprint_bytes[used] = input;
    calls.output_footprint_bytes[used] = output;
    layer[used] = i;
    times[used] = experts;
    if (++used == kLanes) flush();
  };
  for (std::size_t i = 0; i < block.count; ++i) {
    const float cold = block.layer_footprint[i];
    ask(i, block.tokens[i], block.experts[i], block.hidden[i], cold, cold, 0);
    for (std::size_t g = block.first_group[i]; g < block.first_group[i + 1]; ++g) {
      const float experts = block.experts_of_group[g];
      ask(i, block.rows[g], block.up_columns[i], block.hidden[i], block.expert_input[i], block.one_expert[i], experts);
      ask(i, block.rows[g], block.hidden[i], block.width[i], 0, block.expert_output[i], experts);
    }
  }
  if (used > 0) flush();
}

void MoeBatch::cost_stages(Block& block) const noexcept {
  StageLanes lanes;
  std::array<std::size_t, kLanes> layer{};
  std::array<Kind, kLanes> kind{};
  Lane fixed{};  ///< seconds of the terms that are not bytes
  Lane times{};
  Lane half{};
  std::size_t used = 0;
  const auto flush = [&] {
    const Lane memory = lanes.memory_seconds();
    for (std::size_t q = 0; q < used; ++q) {
      const std::size_t i = layer[q];
      const float seconds = fixed[q] + times[q] * memory[q];
      block.spread[kind[q]][i] += seconds * half[q];
      if (kind[q] == kActivation) {
        block.experts_s[i] += seconds;
        block.memory[i] += times[q] * memory[q];
      } else {
        block.routing[i] += seconds;
      }
    }
    used = 0;
  };
  const auto ask = [&](std::size_t i, Kind its, const StageCoefficients& stage, float work, float bytes,
                       float footprint, float repeat) {
    lanes.set(used, stage, bytes, footprint);
    layer[used] = i;
    kind[used] = its;
    fixed[used] = work;
    times[used] = repeat;
    half[used] = stage.half_width;
    if (++used == kLanes) flush();
  };
  const bool masked = strategy_ == KernelStrategy::dense_mask;
  for (std::size_t i = 0; i < block.count; ++i) {
    const float t = block.tokens[i];
    const float k = block.top_k[i];
    const float e = block.experts[i];
    const float ring = block.layer_footprint[i];
    const auto& r = stages_.router.work;
    ask(i, kScores, stages_.router, r[0] + t * (r[1] + r[2] * e + r[3] * k + r[4] * k * e), 4 * t * e + 8 * t * k, ring,
        1);
    if (!masked) {
      const auto& p = stages_.permute.work;
      ask(i, kPermute, stages_.permute, p[0] + p[1] * t * k, t * block.hidden[i] * (k + 1) * element_bytes_, ring, 1);
    }
    const auto& u = stages_.unpermute.work;
    const float gathered = masked ? e : k;
    ask(i, kUnpermute, stages_.unpermute, u[0] + u[1] * t * gathered, 4 * t * block.hidden[i] * (gathered + 1), ring,
        1);
    const StageCoefficients& activation = block.gated[i] ? stages_.gated : stages_.plain;
    const auto& a = activation.work;
    const float row_bytes = block.width[i] * ((block.gated[i] ? 8.0F : 4.0F) + element_bytes_);
    for (std::size_t g = block.first_group[i]; g < block.first_group[i + 1]; ++g) {
      // The law takes whole rows; an expectation between two is scaled from the nearest, as in the cost model.
      const float whole = std::max(1.0F, std::round(block.rows[g]));
      const float repeat = block.experts_of_group[g] * block.rows[g] / whole;
      const float work = repeat * (a[0] + whole * (a[1] + a[2] * block.width[i]));
      ask(i, kActivation, activation, work, whole * row_bytes, block.one_expert[i], repeat);
    }
  }
  if (used > 0) flush();
}

void MoeBatch::write(const Block& block, std::size_t first, const MoeTimes& times) const noexcept {
  const auto put = [&](const std::span<double>& column, std::size_t row, double value) {
    if (!column.empty()) column[row] = value;
  };
  for (std::size_t i = 0; i < block.count; ++i) {
    const std::size_t row = first + i;
    const double latency = static_cast<double>(block.routing[i]) + static_cast<double>(block.experts_s[i]);
    double squares = 0;
    double sum = 0;
    for (const Lane& lane : block.spread) {
      const double half = lane[i];
      squares += half * half;
      sum += half;
    }
    const double kernels = std::sqrt((1 - kKindCorrelation) * squares + kKindCorrelation * sum * sum) / latency;
    const double wider = std::exp(kernels * interval_ratio_);
    put(times.latency_s, row, latency * factor_);
    put(times.low_s, row, latency * factor_ / wider);
    put(times.high_s, row, latency * factor_ * wider);
    put(times.memory_bandwidth_s, row, static_cast<double>(block.memory[i]) * factor_);
    put(times.compute_s, row, static_cast<double>(block.compute[i]) * factor_);
    put(times.routing_overhead_s, row, static_cast<double>(block.routing[i]) * factor_);
    if (!times.extrapolated.empty()) times.extrapolated[row] = block.extrapolated[i] ? 1 : 0;
  }
}

bool MoeBatch::predict(const MoeColumns& layers, const MoeTimes& times) const noexcept {
  for (std::size_t first = 0; first < layers.size(); first += kBlock) {
    Block block;
    if (!fill(layers, first, block)) return false;
    cost_gemms(block);
    cost_stages(block);
    write(block, first, times);
  }
  return true;
}

}  // namespace moecast
