#include "sim/analytic/moe_batch.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "models/core/error.h"
#include "models/routing/inclusion.h"

namespace moecast {
namespace {

constexpr std::int32_t kMostWidth = 1 << 20;
constexpr std::int32_t kMostTokens = 1 << 22;  ///< rows are floats: whole numbers up to 2^24 are exact
constexpr std::int32_t kMostExperts = 4096;
constexpr std::int32_t kMostTopK = 256;
constexpr std::int32_t kMostCopies = 1 << 20;

const GemmCalibration& gemm_of(const Calibration& calibration, const Deployment& deployment, DType dtype) {
  const auto* found = calibration.find_gemm(deployment.backend, dtype, deployment.threads);
  if (found == nullptr) {
    throw InputError("",
                     calibration.profile + " holds no gemm of " + deployment.backend + " in " +
                         std::string(to_string(dtype)) + " on " + std::to_string(deployment.threads) + " threads",
                     "profile it: moecast profile --backend ... --dtype ... --threads ...");
  }
  return *found;
}

DType dtype_of(const Deployment& deployment) {
  if (!deployment.dtype) throw InputError("", "a batch of layers needs a dtype");
  return *deployment.dtype;
}

[[noreturn]] void refuse(std::size_t row, const std::string& column, const std::string& what) {
  throw InputError("row " + std::to_string(row), column + " " + what);
}

}  // namespace

MoeBatch::MoeBatch(const Calibration& calibration, const Deployment& deployment, std::vector<ExpertLoad> loads)
    : strategy_(deployment.strategy),
      loads_(std::move(loads)),
      element_bytes_(static_cast<float>(bytes_per_element(dtype_of(deployment)))),
      weight_bytes_(static_cast<float>(bytes_per_weight(dtype_of(deployment)))),
      gemms_(gemm_of(calibration, deployment, dtype_of(deployment))) {
  if (deployment.tp != 1 || deployment.ep != 1 || deployment.dp != 1 || deployment.pp != 1) {
    throw InputError("", "a batch of layers is of one rank", "ask the predictor for parallel layers");
  }
  if (loads_.empty()) throw InputError("", "a batch of layers needs at least one load");
  const DType dtype = *deployment.dtype;
  stored_columns_ = static_cast<float>(gemm_of(calibration, deployment, dtype).law.traits().pad_columns);
  const auto stage = [&](OperatorKind kind, bool gated) -> const StageCalibration& {
    const auto* found = calibration.find_stage(kind, dtype, deployment.threads, gated);
    if (found == nullptr) {
      throw InputError("", calibration.profile + " holds no " + std::string(to_string(kind)) + " on " +
                               std::to_string(deployment.threads) + " threads");
    }
    return *found;
  };
  stages_.router = StageCoefficients(stage(OperatorKind::router, true));
  stages_.permute = StageCoefficients(stage(OperatorKind::permute, true));
  stages_.unpermute = StageCoefficients(stage(OperatorKind::unpermute, true));
  for (const bool gated : {false, true}) {
    const auto* found = calibration.find_stage(OperatorKind::activation, dtype, deployment.threads, gated);
    if (found != nullptr) (gated ? stages_.gated : stages_.plain) = StageCoefficients(*found);
    (gated ? stages_.has_gated : stages_.has_plain) = found != nullptr;
  }
  factor_ = calibration.closures.factor(deployment.backend, dtype, deployment.threads, deployment.strategy);
  interval_ratio_ = calibration.closures.interval_ratio;
}

void MoeBatch::check(const MoeColumns& layers) const {
  const std::size_t size = layers.size();
  const auto same = [&](std::size_t length, bool optional, const char* name) {
    if (length == size || (optional && length == 0)) return;
    throw InputError(
        "", std::string("column ") + name + " has " + std::to_string(length) + " rows, hidden " + std::to_string(size));
  };
  same(layers.intermediate.size(), false, "intermediate");
  same(layers.experts.size(), false, "experts");
  same(layers.top_k.size(), false, "top_k");
  same(layers.tokens.size(), false, "tokens");
  same(layers.gated.size(), true, "gated");
  same(layers.capacity_factor.size(), true, "capacity_factor");
  same(layers.copies.size(), true, "copies");
  same(layers.load.size(), true, "load");
  for (std::size_t row = 0; row < size; ++row) check_row(layers, row);
}

void MoeBatch::check_row(const MoeColumns& layers, std::size_t row) const {
  const auto range = [&](const std::span<const std::int32_t>& column, std::int32_t most, const char* name) {
    if (column.empty() || (column[row] >= 1 && column[row] <= most)) return;
    refuse(row, name, "is " + std::to_string(column[row]) + ", expected 1 to " + std::to_string(most));
  };
  range(layers.hidden, kMostWidth, "hidden");
  range(layers.intermediate, kMostWidth, "intermediate");
  range(layers.experts, kMostExperts, "experts");
  range(layers.top_k, std::min(kMostTopK, layers.experts[row]), "top_k");
  range(layers.tokens, kMostTokens, "tokens");
  range(layers.copies, kMostCopies, "copies");
  const bool gated = layers.gated.empty() || layers.gated[row] != 0;
  if (gated ? !stages_.has_gated : !stages_.has_plain) refuse(row, "gated", "has no activation in the profile");
  if (!layers.capacity_factor.empty() && !(layers.capacity_factor[row] > 0)) {
    refuse(row, "capacity_factor", "must be above zero, infinite for no limit");
  }
  if (!layers.load.empty() && (layers.load[row] < 0 || static_cast<std::size_t>(layers.load[row]) >= loads_.size())) {
    refuse(row, "load", "is " + std::to_string(layers.load[row]) + ", there are " + std::to_string(loads_.size()));
  }
}

std::size_t MoeBatch::class_index(std::size_t load, std::int64_t experts, std::int64_t top_k) const noexcept {
  const auto row = load * static_cast<std::size_t>(most_experts_ + 1) + static_cast<std::size_t>(experts);
  return row * static_cast<std::size_t>(most_top_k_ + 1) + static_cast<std::size_t>(top_k);
}

void MoeBatch::learn(std::size_t load, std::int64_t experts, int top_k) {
  std::int32_t& index = class_of_[class_index(load, experts, top_k)];
  if (index >= 0) return;
  const ExpertLoad& its = loads_[load];
  classes_.push_back(its.kind == LoadKind::uniform
                         ? uniform_classes(experts, top_k)
                         : classes_of(inclusion_probability(expert_popularity(its, experts), top_k)));
  keys_.push_back({load, experts, top_k});
  index = static_cast<std::int32_t>(classes_.size()) - 1;
}

void MoeBatch::prepare(const MoeColumns& layers) {
  check(layers);
  std::int64_t experts = most_experts_;
  std::int64_t top_k = most_top_k_;
  for (const std::int32_t e : layers.experts) experts = std::max<std::int64_t>(experts, e);
  for (const std::int32_t k : layers.top_k) top_k = std::max<std::int64_t>(top_k, k);
  if (experts > most_experts_ || top_k > most_top_k_) {
    most_experts_ = experts;
    most_top_k_ = top_k;
    class_of_.assign(loads_.size() * static_cast<std::size_t>((experts + 1) * (top_k + 1)), -1);
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      class_of_[class_index(keys_[i].load, keys_[i].experts, keys_[i].top_k)] = static_cast<std::int32_t>(i);
    }
  }
  for (std::size_t row = 0; row < layers.size(); ++row) {
    const std::size_t load = layers.load.empty() ? 0 : static_cast<std::size_t>(layers.load[row]);
    learn(load, layers.experts[row], layers.top_k[row]);
  }
}

}  // namespace moecast
