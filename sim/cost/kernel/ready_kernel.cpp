#include "sim/cost/kernel/ready_kernel.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace moecast {
namespace {

/// Unit of the scores of a configuration next to measured ones.
constexpr double kNearCurves = 0.8;

/// Bandwidths that differ by less are the same.
constexpr double kSameBandwidth = 0.01;

/// 0: measured itself, 1: next to what was measured, 2: far.
double distance_class(const CompiledKernel& compiled) {
  return compiled.measured() ? 0 : compiled.sigma() <= kNearCurves ? 1 : 2;
}

/// "0.24.0" above "0.9.2".
double version_number(const std::string& version) {
  double number = 0;
  double digit = 0;
  double scale = 1e12;
  for (const char c : version + ".") {
    if (c >= '0' && c <= '9') {
      digit = 10 * digit + (c - '0');
      continue;
    }
    number += digit * scale;
    scale /= 1e3;
    digit = 0;
  }
  return number;
}

}  // namespace

std::vector<std::string> table_formats(DType dtype) {
  switch (dtype) {
    case DType::bf16:
    case DType::fp16: return {"bfloat16", "float16"};
    case DType::fp8: return {"fp8", "fp8_block"};
    case DType::int4: return {"int4_wo"};
    case DType::mxfp4: return {"w4a8_mxfp4_mxfp8", "w4a16_mxfp4"};
    default: return {std::string(to_string(dtype))};
  }
}

CompiledKernel::Answer ReadyKernelData::at(const KernelRowValues& row, std::optional<RankLoad> load) const {
  if (next && row.span()[next_column] >= next_from) return next->at(row, load);
  thread_local RankLoadCache loads;
  return compiled.at({row.span(), load}, loads);
}

std::string ReadyKernelData::guess() const {
  if (!pick || pick->origin != Origin::assumed || compiled.measured()) return {};
  return "that " + model.key.framework + " runs " + model.key.kernel + " here is assumed (" + pick->source + ")";
}

namespace {

std::shared_ptr<ReadyKernelData> make_ready(const KernelModel& known, const KernelRowValues& row,
                                            CompiledKernel::Workspace& workspace) {
  auto ready = std::make_shared<ReadyKernelData>();
  ready->model = known;
  ready->compiled = CompiledKernel(ready->model, row.span(), workspace);
  return ready;
}

const KernelRule* rule_for(const KernelCalibration& calibration, const KernelWanted& wanted, const KernelKey& key,
                           const KernelRowValues& row) {
  if (!wanted.only.empty()) return nullptr;
  return find_kernel_rule(calibration.backends, key.framework, key.layout, key.dtype,
                          wanted.picked_by ? wanted.picked_by->span() : row.span());
}

/// The best kernel at the very position of the row.
std::shared_ptr<ReadyKernelData> find_at(const KernelCalibration& calibration, const KernelWanted& wanted,
                                         const KernelRowValues& row) {
  std::shared_ptr<ReadyKernelData> best;
  std::array<double, 7> best_rank{};
  CompiledKernel::Workspace workspace;
  for (const KernelModel& known : calibration.kernels) {
    if (known.key.layout != wanted.layout || !known.key.kernel.ends_with(wanted.part)) continue;
    if (!wanted.only.empty() && known.key.kernel != wanted.only) continue;
    const auto format = std::ranges::find(wanted.formats, known.key.dtype);
    if (!wanted.formats.empty() && format == wanted.formats.end()) continue;
    const KernelRule* rule = rule_for(calibration, wanted, known.key, row);
    const bool picked = rule != nullptr && rule->names(known.key.kernel);
    const std::array<double, 4> first{known.key.framework == wanted.framework ? 0.0 : 1.0,
                                      wanted.version.empty() || known.key.version == wanted.version ? 0.0 : 1.0,
                                      static_cast<double>(format - wanted.formats.begin()),
                                      rule == nullptr || picked ? 0.0 : 1.0};
    if (best &&
        std::lexicographical_compare(best_rank.begin(), best_rank.begin() + first.size(), first.begin(), first.end())) {
      continue;
    }
    auto ready = make_ready(known, row, workspace);
    const double sigma = ready->compiled.sigma();
    const std::array<double, 7> rank{first[0],
                                     first[1],
                                     first[2],
                                     first[3],
                                     wanted.usual ? distance_class(ready->compiled) : sigma,
                                     wanted.usual ? -static_cast<double>(known.rows) : 0.0,
                                     -version_number(known.key.version)};
    if (best && !(rank < best_rank)) continue;
    best_rank = rank;
    if (picked) ready->pick = KernelPick{rule->origin, rule->source};
    if (known.key.framework != wanted.framework && !wanted.framework.empty()) {
      ready->substitution = "stands for " + std::string(wanted.framework);
    }
    best = std::move(ready);
  }
  return best;
}

/// Links the kernels that the framework's rules name at larger positions.
void add_later_kernels(const KernelCalibration& calibration, const KernelWanted& wanted, const KernelRowValues& row,
                       ReadyKernelData& first) {
  ReadyKernelData* last = &first;
  for (const BackendRules& backend : calibration.backends) {
    if (backend.framework != first.model.key.framework) continue;
    for (const auto& [column, value] : backend.thresholds(first.model.key.layout, first.model.key.dtype)) {
      if (value <= row.span()[column]) continue;
      KernelRowValues later = row;
      auto ready = find_at(calibration, wanted, later.set(column, value));
      if (!ready || !ready->pick || ready->model.key == last->model.key) continue;
      last->next_column = column;
      last->next_from = value;
      ReadyKernelData* const added = ready.get();
      last->next = std::move(ready);
      last = added;
    }
  }
}

}  // namespace

void move_to_links(ReadyKernelData& kernel, const DeviceLimits& own, const DeviceLimits& asked, bool spans_nodes,
                   const KernelRowValues& row) {
  const auto same = [](double a, double b) { return std::abs(a - b) <= kSameBandwidth * std::max(a, b); };
  const bool moved = is_communication(kernel.model.key.layout) &&
                     (!same(own.link, asked.link) || (spans_nodes && !same(own.nic, asked.nic)));
  if (!moved) return;
  kernel.model.law = make_kernel_law(kernel.model.key, asked);
  kernel.model.inherited = true;
  kernel.model.scores.widen(2);
  kernel.substitution += kernel.substitution.empty() ? "on links of another bandwidth" : ", on other links";
  CompiledKernel::Workspace workspace;
  kernel.compiled = CompiledKernel(kernel.model, row.span(), workspace);
}

std::shared_ptr<ReadyKernelData> find_ready_kernel(const KernelCalibration& calibration, const KernelWanted& wanted,
                                                   const KernelRowValues& row) {
  std::shared_ptr<ReadyKernelData> best = find_at(calibration, wanted, row);
  if (best && wanted.only.empty() && !wanted.picked_by) add_later_kernels(calibration, wanted, row, *best);
  return best;
}

std::vector<ReadyKernel> find_ready_kernels(const KernelCalibration& calibration, const KernelWanted& wanted,
                                            const KernelRowValues& row) {
  std::vector<ReadyKernel> found;
  const std::shared_ptr<ReadyKernelData> best = find_ready_kernel(calibration, wanted, row);
  if (!best) return found;
  found.push_back(best);
  const KernelRule* rule = best->pick ? rule_for(calibration, wanted, best->model.key, row) : nullptr;
  CompiledKernel::Workspace workspace;
  for (const KernelModel& known : calibration.kernels) {
    const KernelKey& key = best->model.key;
    if (known.key.layout != key.layout || known.key.framework != key.framework || known.key.version != key.version ||
        known.key.dtype != key.dtype || known.key.kernel == key.kernel || !known.key.kernel.ends_with(wanted.part) ||
        (rule != nullptr && !rule->names(known.key.kernel))) {
      continue;
    }
    auto ready = make_ready(known, row, workspace);
    ready->substitution = best->substitution;
    ready->pick = best->pick;
    if (distance_class(ready->compiled) <= distance_class(best->compiled)) found.push_back(std::move(ready));
  }
  return found;
}

}  // namespace moecast
