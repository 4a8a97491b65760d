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
  const StepOperators& operators = model.operators();
  if (!operators.overlapped || shape.decodes + shape.prompts < kHalves) return {};
  const Split whole = split_of(model.times(shape));
  const Split half = split_of(model.times(part_of(shape, kHalves)));
  const double computation = kHalves * half.computation;
  const double exchange = kHalves * half.exchange;
  const double taken = shape.prompts > 0 ? *operators.overlapped : 0;
  const double seconds = std::max(exchange, computation + taken * exchange);
  if (exchange == 0 || seconds >= whole.computation + whole.exchange) return {};
  return {kHalves, (seconds - computation) / exchange};
}

}  // namespace moecast
