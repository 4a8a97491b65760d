#pragma once
#include <functional>

#include "sim/step/step_model.h"

namespace moecast {

/// How a step hides the exchange of rows with experts behind computation: in two halves of its batch, one of which
/// computes while rows of the other travel.
struct BatchOverlap {
  double parts = 1;    ///< of the batch, each through all layers
  double exposed = 1;  ///< share of the exchange that nothing hides
};

/// The faster of a whole batch and of two halves, where the engine overlaps them.
///
/// Halves read all weights each. While rows of a prompt travel, the multiprocessors that move them do not compute:
/// halves take max(M, C + s M), with C the computation of both, M their exchanges and s the share of multiprocessors
/// taken. Rows that are generated travel without them (s = 0).
BatchOverlap best_overlap(const StepModel& model, const StepShape& shape);

/// Kernels of a step in which exchanges count as far as nothing hides them. @param times  as StepModel::times.
StepTimes overlapped_times(const StepOperators& operators, const StepShape& shape,
                           const std::function<StepTimes(const StepShape&)>& times);

/// One of so many equal parts of a step.
StepShape part_of(const StepShape& shape, double parts);

}  // namespace moecast
