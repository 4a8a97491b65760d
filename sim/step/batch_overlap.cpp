#include "sim/step/batch_overlap.h"

#include <algorithm>

namespace moecast {
namespace {

constexpr double kHalves = 2;

struct Split {
  double computation = 0;
  double exchange = 0;
};

Split split_of(const StepTimes& times) {
  const double exchange = times[static_cast<std::size_t>(StepGroup::communication)];
  return {sum(times) - exchange, exchange};
}

bool may_overlap(const StepOperators& operators, const StepShape& shape) {
  return operators.overlapped.has_value() && shape.decodes + shape.prompts >= kHalves;
}

BatchOverlap faster(const StepOperators& operators, const StepShape& shape, const StepTimes& whole_times,
                    const StepTimes& half_times) {
  const Split whole = split_of(whole_times);
  const Split half = split_of(half_times);
  const double computation = kHalves * half.computation;
  const double exchange = kHalves * half.exchange;
  const double taken = shape.prompts > 0 ? operators.overlapped.value() : 0;
  const double seconds = std::max(exchange, computation + taken * exchange);
  if (exchange == 0 || seconds >= whole.computation + whole.exchange) return {};
  return {kHalves, (seconds - computation) / exchange};
}

}  // namespace

StepShape part_of(const StepShape& shape, double parts) {
  StepShape part = shape;
  for (double StepShape::* count : {&StepShape::rows, &StepShape::decodes, &StepShape::context, &StepShape::prompts,
                                    &StepShape::prefix, &StepShape::expert_rows}) {
    part.*count /= parts;
  }
  return part;
}

BatchOverlap best_overlap(const StepModel& model, const StepShape& shape) {
  if (!may_overlap(model.operators(), shape)) return {};
  return faster(model.operators(), shape, model.times(shape), model.times(part_of(shape, kHalves)));
}

StepTimes overlapped_times(const StepOperators& operators, const StepShape& shape,
                           const std::function<StepTimes(const StepShape&)>& times) {
  const StepTimes whole = times(shape);
  if (!may_overlap(operators, shape)) return whole;
  StepTimes half = times(part_of(shape, kHalves));
  const BatchOverlap overlap = faster(operators, shape, whole, half);
  if (overlap.parts == 1) return whole;
  for (double& seconds : half) seconds *= overlap.parts;
  half[static_cast<std::size_t>(StepGroup::communication)] *= overlap.exposed;
  return half;
}

}  // namespace moecast
