#pragma once
#include <functional>
#include <string>

#include "models/plan/graph.h"
#include "sim/cost/calibration.h"
#include "sim/cost/cost_model.h"
#include "sim/predictor.h"

namespace moecast {

/// Between the errors of two kinds of operators.
inline constexpr double kKindCorrelation = 0.3;

/// Seconds of one operator, all its executions, with what they are made of.
struct OperatorTime {
  Seconds latency;
  Seconds memory;         ///< bytes over bandwidth
  Seconds compute;        ///< arithmetic
  double half_width = 0;  ///< of a 90 % interval of ln latency
  Origin origin = Origin::measured;
};

/// Key of a graph's operator in a cost model. GEMMs belong to the backend and see the footprint of the whole step; all
/// else runs in the program's own loops ("native") on buffers that every layer uses again.
KernelPoint kernel_point(const Operator& op, const OperatorGraph& graph, const Deployment& deployment);

/// @throws InputError when the cost model does not know the operator.
OperatorTime time_of(const Operator& op, const OperatorGraph& graph, const Deployment& deployment,
                     const CostModel& model);

/// What executed layers say about sums of kernels (Closures); 1 = nothing.
struct LayerTerms {
  double factor = 1;
  double interval_ratio = 1;
};

/// Closed form over a graph: operators one after another, the four factors, the bottleneck, the interval of a sum.
/// Interval: operators of one kind share their error over all layers (variances are not added over layers), kinds are
/// correlated by 0.3; the sum is scaled by the terms' ratio.
Prediction evaluate(const OperatorGraph& graph, const Deployment& deployment, const Workload& workload,
                    const CostModel& model, const LayerTerms& terms, const Without& without);

/// Seconds of one operator, all its executions, by whatever machine.
using TimeOf = std::function<OperatorTime(const Operator&)>;

/// The same where operators are timed by more than a key of their shape: kernels of a GPU.
Prediction evaluate(const OperatorGraph& graph, const Deployment& deployment, const Workload& workload,
                    const TimeOf& time_of_operator, const LayerTerms& terms, const Without& without);

/// Widens the interval of an operator that is only like what was measured (Operator::akin), and says so.
void widen_if_akin(const Operator& op, OperatorTime& time);

}  // namespace moecast
