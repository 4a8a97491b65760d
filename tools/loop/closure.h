#pragma once
#include <vector>

#include "sim/cost/calibration.h"
#include "sim/predictor.h"
#include "tools/loop/session_runner.h"

namespace moecast {

/// What lies between the kernels of a layer and the layer, one closure a (backend, dtype, threads, strategy): the
/// median of executed / predicted. Then how far layers stray from it, in half widths of the kernels' own interval:
/// split conformal over all layers, each against the factor of the others of its combination.
/// @param predictor  made from the kernels alone, measured in the same rounds as the layers.
Closures fit_closures(const std::vector<ExecutedCase>& layers, const Predictor& predictor);

}  // namespace moecast
