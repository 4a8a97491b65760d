#include "sim/step/stream_overlap.h"

#include <algorithm>

namespace moecast {

StepTimes times_one_after_the_other(const StepOperators& operators, const StepShape& shape) {
  StepTimes times{};
  for (const StepOperator& op : operators.operators) {
    times[static_cast<std::size_t>(op.group)] += op.count * op.seconds(shape);
  }
  return times;
}

double exposed_shared(const StepOperators& operators, const StepShape& shape, const StepTimes& times) {
  const double shared = times[static_cast<std::size_t>(StepGroup::shared)];
  const double routed = times[static_cast<std::size_t>(StepGroup::experts)];
  if (shape.rows > operators.shared_stream_rows || shared <= 0 || routed <= 0) return 1;
  double shared_bytes = 0;
  double routed_bytes = 0;
  for (const StepOperator& op : operators.operators) {
    if (!op.work) continue;
    if (op.group == StepGroup::shared) shared_bytes += op.count * op.work(shape).bytes;
    if (op.group == StepGroup::experts) routed_bytes += op.count * op.work(shape).bytes;
  }
  const double bandwidth = std::max(shared_bytes / shared, routed_bytes / routed);
  double together = std::max(shared, routed);
  if (bandwidth > 0) together = std::max(together, (shared_bytes + routed_bytes) / bandwidth);
  return std::clamp((together - routed) / shared, 0.0, 1.0);
}

}  // namespace moecast
