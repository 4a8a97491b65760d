#include "sim/cost/gemm_lanes.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace moecast {
namespace {

constexpr float kNearPoints = 0.2F;  ///< as in the cost model: below it a point is outside what was measured
constexpr double kNinetyLanes = 1.645;
constexpr auto kLog2e = static_cast<float>(std::numbers::log2e);

/// Ranges of the residual's table: generous, for queries outside are exact but slow.
std::vector<KrigingTable::Axis> axes(const GemmTraits& traits) {
  const bool splits = packs_some(traits.packing);
  return {{0, 14, 0}, {0, 16, 0}, {4, 15, 0}, {12, 36, 0}, {0, 1, 0}, {0, 1, 0}, {0, splits ? 2.0F : 1.0F, 1}};
}

/// As in GemmLaw::features.
float coldness(float octaves, float first) {
  constexpr auto kPerOctave = static_cast<float>(1 / GemmLaw::kColdOctaves);
  const float cold = (octaves - first) * kPerOctave;
  return cold > 1 ? 1.0F : cold > 0 ? cold : 0.0F;
}

static_assert(GemmLaw::kFeatures == 7);

float round_up(float value, float multiple) { return std::ceil(value / multiple) * multiple; }

}  // namespace

/// Per call, as GemmLaw::Terms, with log2 of what the residual asks for.
struct GemmLanes::Terms {
  Lane rows, footprint_octaves, input_octaves, output_octaves, packs;
  Lane compute, memory, row_traffic;
};

GemmLanes::GemmLanes(const GemmCalibration& calibration)
    : traits_(calibration.law.traits()), residual_(calibration.residual, axes(traits_)) {
  const Eigen::VectorXd& p = calibration.law.log_parameters();
  const auto value = [&](GemmLaw::Parameter i) { return static_cast<float>(std::exp(p(i))); };
  const auto inverse = [&](GemmLaw::Parameter i) { return static_cast<float>(std::exp(-p(i))); };
  call_ = value(GemmLaw::kCall);
  per_flop_ = inverse(GemmLaw::kPeak);
  rows0_ = value(GemmLaw::kRows0);
  depth0_ = value(GemmLaw::kDepth0);
  columns0_ = value(GemmLaw::kColumns0);
  sharpness_ = 1 + value(GemmLaw::kSharpness);
  input_reads_ = inverse(GemmLaw::kInputReads);
  output_writes_ = inverse(GemmLaw::kOutputWrites);
  input_again_ = inverse(GemmLaw::kInputAgain) / static_cast<float>(GemmLaw::kPanelColumns);
  output_again_ = inverse(GemmLaw::kOutputAgain) / static_cast<float>(GemmLaw::kPanelDepth);
  restream_depth_ = value(GemmLaw::kRestreamDepth);
  private_cache_ = value(GemmLaw::kPrivateCache);
  pack_ = inverse(GemmLaw::kPack);
  pack_alias_ = (1 + value(GemmLaw::kPackAlias)) * pack_;
  pack_reads_ = value(GemmLaw::kPackReads);
  pack_depth_ = value(GemmLaw::kPackDepth);
  one_row_ = value(GemmLaw::kOneRow);
  two_rows_ = value(GemmLaw::kTwoRows);
  const double near = std::exp(-p(GemmLaw::kScalars + GemmLaw::kNearNode));
  const double far = std::exp(-p(GemmLaw::kScalars + GemmLaw::kFarNode));
  near_ = static_cast<float>(near);
  inverse_far_ = far > near ? static_cast<float>(1 / (far - near)) : 0.0F;
  first_ = static_cast<float>(-p(GemmLaw::kScalars) * std::numbers::log2e);
  double slope = 0;
  for (int i = 0; i < GemmLaw::kNodes; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const double here = std::log2(GemmLaw::kNodeBytes[at]);
    double next = 0;
    if (i + 1 < GemmLaw::kNodes) {
      const double rise = -(p(GemmLaw::kScalars + i + 1) - p(GemmLaw::kScalars + i)) * std::numbers::log2e;
      next = rise / (std::log2(GemmLaw::kNodeBytes[at + 1]) - here);
    }
    hinge_nodes_[at] = static_cast<float>(here);
    hinge_slopes_[at] = static_cast<float>(next - slope);
    slope = next;
  }
  for (std::size_t band = 0; band < kBands; ++band)
    half_width_[band] = static_cast<float>(calibration.half_width[band]);
  extrapolated_variance_ = static_cast<float>(kNinetyLanes * kNinetyLanes * calibration.residual.variance());
}

void GemmLanes::round_rows(const Lane& m, Lane& rows) const noexcept {
  // A fractional row count keeps its fraction below the rounded whole, as in the law.
  switch (traits_.row_bucket) {
    case RowBucket::exact: rows = m; break;
    case RowBucket::multiple4:
      for (int i = 0; i < kLanes; ++i) {
        const float whole = std::ceil(m[i]);
        rows[i] = m[i] + (whole <= 2 ? whole : round_up(whole, 4)) - whole;
      }
      break;
    case RowBucket::tile16:
      for (int i = 0; i < kLanes; ++i) {
        const float whole = std::ceil(m[i]);
        rows[i] = m[i] + round_up(whole, 16) - whole;
      }
      break;
  }
}

GemmLanes::Lane GemmLanes::seconds_per_byte(const Lane& octaves) const noexcept {
  Lane y;
  for (int i = 0; i < kLanes; ++i) {
    float sum = first_;
#pragma GCC unroll 16
    for (std::size_t node = 0; node < GemmLaw::kNodes; ++node) {
      sum += hinge_slopes_[node] * larger_of(octaves[i] - hinge_nodes_[node], 0.0F);
    }
    y[i] = lane_exp2(sum);
  }
  return y;
}

void GemmLanes::passes(const Calls& c, const Lane& rows, const Lane& weights, Lane& passes) const noexcept {
  passes.fill(1);
  if (traits_.block_rows <= 0) return;
  const auto block = static_cast<float>(traits_.block_rows);
  for (int i = 0; i < kLanes; ++i) {
    const float whole = std::ceil(rows[i]);
    const float blocks = std::floor(whole / block);
    const float rest = whole > blocks * block ? 1.0F : 0.0F;
    const float depth = restream_depth_ / c.k[i];
    const float cache = private_cache_ / weights[i];
    const float more = (rest + (blocks - 1) / (1 + depth * depth)) / (1 + cache * cache);
    passes[i] = whole > block ? 1 + more : 1.0F;
  }
}

void GemmLanes::busiest(const Calls& c, const Lane& rows, Lane& busiest) const noexcept {
  busiest.fill(1);
  if (traits_.threads <= 1 || traits_.block_columns <= 0) return;
  const auto threads = static_cast<float>(traits_.threads);
  const auto block = static_cast<float>(GemmLaw::kBlockRows);
  const auto width = static_cast<float>(traits_.block_columns);
  const bool split = traits_.block_rows > 0;
  const auto share = [threads](float blocks) { return std::ceil(blocks / threads) * threads / blocks; };
  for (int i = 0; i < kLanes; ++i) {
    const float columns = std::ceil(c.n[i] / width);
    const float whole = std::ceil(rows[i]);
    const float blocks = split ? std::floor(whole / block) : std::ceil(whole / block);
    const float rest = split ? (whole - blocks * block) / whole : 0.0F;
    const float first = blocks > 0 ? (1 - rest) * share(columns * blocks) : 0.0F;
    busiest[i] = first + rest * share(columns);
  }
}

void GemmLanes::few_rows(const Lane& rows, const Lane& seconds_per_byte, Lane& factor) const noexcept {
  for (int i = 0; i < kLanes; ++i) {
    const float first = larger_of(rows[i] - 1, 0.0F);
    const float second = larger_of(3 - rows[i], 0.0F);
    const float more = rows[i] <= 2 ? one_row_ + (two_rows_ - one_row_) * first : two_rows_ * second;
    const float far = smaller_of(larger_of((seconds_per_byte[i] - near_) * inverse_far_, 0.0F), 1.0F);
    factor[i] = 1 + more * far;
  }
}

void GemmLanes::physics(const Calls& c, Terms& t) const noexcept {
  round_rows(c.m, t.rows);
  const auto element = static_cast<float>(traits_.element_bytes);
  const auto pad = static_cast<float>(traits_.pad_columns);
  Lane weights, input, output, own_input, own_output, far_input, far_output;
  for (int i = 0; i < kLanes; ++i) {
    const float columns16 = round_up(c.n[i], static_cast<float>(GemmLaw::kVectorColumns));
    weights[i] = round_up(c.n[i], pad) * c.k[i] * element;
    input[i] = t.rows[i] * c.k[i] * element;
    output[i] = 4 * t.rows[i] * c.n[i];
    const float footprint = larger_of(c.footprint_bytes[i], weights[i]) + input[i] + output[i];
    t.footprint_octaves[i] = lane_log2(footprint);
    t.input_octaves[i] = lane_log2(larger_of(c.input_footprint_bytes[i], 1.0F));
    t.output_octaves[i] = lane_log2(larger_of(c.output_footprint_bytes[i], 1.0F));
    own_input[i] = lane_log2(input[i]);
    own_output[i] = lane_log2(output[i]);
    far_input[i] = larger_of(t.input_octaves[i], own_input[i]);
    far_output[i] = larger_of(t.output_octaves[i], own_output[i]);
    t.packs[i] = packs_weights(traits_.packing, t.rows[i], c.n[i], c.k[i]) ? 1.0F : 0.0F;
    t.compute[i] = 2 * per_flop_ * (t.rows[i] + rows0_) * (c.k[i] + depth0_) * (columns16 + columns0_);
  }
  const Lane stream = seconds_per_byte(t.footprint_octaves);
  const Lane first_input = seconds_per_byte(far_input);
  const Lane first_output = seconds_per_byte(far_output);
  const Lane next_input = seconds_per_byte(own_input);
  const Lane next_output = seconds_per_byte(own_output);
  Lane times;
  Lane busy;
  passes(c, t.rows, weights, times);
  busiest(c, t.rows, busy);
  Lane few;
  few_rows(t.rows, stream, few);
  for (int i = 0; i < kLanes; ++i) {
    const float streamed = busy[i] * times[i] * weights[i] * stream[i] * few[i];
    t.compute[i] *= busy[i];
    const float rows = c.k[i] * element * static_cast<float>(1 / GemmLaw::kAliasBytes);
    const float packing = weights[i] * (rows == std::floor(rows) ? pack_alias_ : pack_);
    const float packed = (packing + pack_reads_ * streamed) * (1 + pack_depth_ / c.k[i]);
    t.memory[i] = t.packs[i] > 0 ? packed : streamed;
    t.row_traffic[i] = input[i] * (input_reads_ * first_input[i] + input_again_ * c.n[i] * next_input[i]) +
                       output[i] * (output_writes_ * first_output[i] + output_again_ * c.k[i] * next_output[i]);
  }
}

void GemmLanes::cost(const Calls& c, int count, Costs& costs) const noexcept {
  Terms t;
  physics(c, t);
  KrigingTable::Lanes x;
  const bool two_paths = splits();
  const float first = hinge_nodes_[0];
  for (int i = 0; i < kLanes; ++i) {
    x[0][i] = lane_log2(t.rows[i]);
    x[1][i] = lane_log2(c.n[i]);
    x[2][i] = lane_log2(c.k[i]);
    x[3][i] = t.footprint_octaves[i];
    x[4][i] = coldness(t.input_octaves[i], first);
    x[5][i] = coldness(t.output_octaves[i], first);
  }
  static_assert(GemmLaw::kMostAliasing == 4);
  const float graded = traits_.packing == WeightPacking::none ? 1.0F : 0.0F;
  for (int i = 0; i < kLanes; ++i) {
    const auto multiple = [n = c.n[i]](double columns) {
      const float quotient = n * static_cast<float>(1 / columns);
      return quotient == std::floor(quotient) ? 1.0F : 0.0F;
    };
    constexpr double kFirst = GemmLaw::kAliasColumns;
    const float aliases =
        multiple(kFirst) + graded * (multiple(2 * kFirst) + multiple(4 * kFirst) + multiple(8 * kFirst));
    x[6][i] = two_paths ? 2 * t.packs[i] : aliases;
  }
  KrigingTable::Answer residual;
  residual_.evaluate(x, count, residual);
  for (int i = count; i < kLanes; ++i) residual.mean[i] = residual.nearness[i] = 0;
  // Copies: the compiler cannot know that the answers do not overlap this object.
  const float call = call_;
  const float sharpness = sharpness_;
  const float inverse_sharpness = 1 / sharpness;
  const auto [few, some, many] = half_width_;
  const float extrapolated = extrapolated_variance_;
  for (int i = 0; i < kLanes; ++i) {
    // (a^q + b^q)^(1/q) = a (1 + (b/a)^q)^(1/q), a the larger.
    const float larger = larger_of(t.compute[i], t.memory[i]);
    const float ratio = smaller_of(t.compute[i], t.memory[i]) / larger;
    const float overlapped =
        larger * lane_exp2(inverse_sharpness * lane_log2(1 + lane_exp2(sharpness * lane_log2(ratio))));
    const float both = t.packs[i] > 0 ? t.compute[i] + t.memory[i] : overlapped;
    const float law = call + both + t.row_traffic[i];
    costs.seconds[i] = law * lane_exp2(kLog2e * residual.mean[i]);
    const float memory = t.memory[i] + t.row_traffic[i];
    const float whole = 1 / larger_of(law, memory + t.compute[i]);
    costs.memory_ratio[i] = memory * whole;
    costs.compute_ratio[i] = t.compute[i] * whole;
    const float half = c.m[i] <= 16 ? few : c.m[i] <= 256 ? some : many;
    costs.half_width[i] = std::sqrt(half * half + (residual.nearness[i] < kNearPoints ? extrapolated : 0.0F));
  }
  for (int i = 0; i < kLanes; ++i) costs.extrapolated[i] = residual.nearness[i] < kNearPoints;
}

}  // namespace moecast
