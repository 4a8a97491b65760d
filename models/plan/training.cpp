#include "models/plan/training.h"

#include <algorithm>
#include <string>

#include "models/core/error.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"

namespace moecast {
namespace {

constexpr std::array<std::string_view, kModelParts> kParts{"embedding", "attention", "router", "experts",
                                                           "shared",    "dense",     "norms",  "head"};
constexpr std::array<std::string_view, 3> kOptimizers{"sgd", "momentum", "adam"};
constexpr std::array<std::string_view, 3> kRecomputations{"none", "selective", "full"};

template <class T, std::size_t N>
std::optional<T> find(const std::array<std::string_view, N>& names, std::string_view text) {
  const auto found = std::ranges::find(names, text);
  if (found == names.end()) return std::nullopt;
  return static_cast<T>(found - names.begin());
}

void require_positive(std::int64_t count, const char* name) {
  if (count < 1) throw InputError(name, "is " + std::to_string(count), "expected at least 1");
}

}  // namespace

std::string_view to_string(ModelPart part) { return kParts[static_cast<std::size_t>(part)]; }
std::string_view to_string(Optimizer optimizer) { return kOptimizers[static_cast<std::size_t>(optimizer)]; }
std::optional<Optimizer> find_optimizer(std::string_view text) { return find<Optimizer>(kOptimizers, text); }
int optimizer_states(Optimizer optimizer) { return static_cast<int>(optimizer); }
std::string_view to_string(Recomputation recomputation) {
  return kRecomputations[static_cast<std::size_t>(recomputation)];
}
std::optional<Recomputation> find_recomputation(std::string_view text) {
  return find<Recomputation>(kRecomputations, text);
}

bool TrainingPlan::trains_nothing() const {
  return std::ranges::all_of(frozen, [](bool part) { return part; });
}

TrainingPlan attack_plan(std::int64_t steps) {
  require_positive(steps, "attack steps");
  TrainingPlan plan;
  plan.frozen.fill(true);
  plan.input_gradient = true;
  plan.passes = steps;
  return plan;
}

std::int64_t micro_batch(const Workload& workload, const Deployment& deployment) {
  const TrainingPlan& plan = workload.training;
  require_positive(plan.accumulation, "accumulation");
  require_positive(plan.replicas, "replicas");
  require_positive(plan.passes, "passes");
  if (plan.zero_stage < 0 || plan.zero_stage > 3) {
    throw InputError("zero_stage", "is " + std::to_string(plan.zero_stage), "expected 0 to 3");
  }
  if (plan.trains_nothing() && !plan.input_gradient) {
    throw InputError("frozen", "leaves nothing to train", "leave a part unfrozen, or ask for a forward pass: prefill");
  }
  if (plan.passes > 1 && !plan.trains_nothing()) {
    throw InputError("passes", "above 1 are those of an attack, which trains nothing", "freeze all parts");
  }
  const std::int64_t shares = plan.accumulation * plan.replicas * deployment.dp;
  if (workload.batch % shares != 0) {
    throw InputError("batch",
                     std::to_string(workload.batch) + " sequences cannot be shared by " +
                         std::to_string(plan.accumulation) + " micro-batches on " +
                         std::to_string(plan.replicas * deployment.dp) + " data-parallel ranks",
                     "give a multiple of " + std::to_string(shares));
  }
  return workload.batch / (plan.accumulation * plan.replicas);
}

DType gradient_dtype(const TrainingPlan& plan, DType weights) {
  if (plan.gradient_dtype) return *plan.gradient_dtype;
  return bytes_per_element(weights) < 2 ? DType::bf16 : weights;
}

}  // namespace moecast
