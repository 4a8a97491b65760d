#pragma once
#include <vector>

#include "hwprofiles/layers.h"
#include "sim/cost/calibration.h"
#include "sim/predictor.h"
#include "tools/loop/session_runner.h"

namespace moecast {

/// What lies between the kernels of a layer and the layer, one closure a (backend, dtype, threads, strategy): the
/// median of executed / predicted. Then how far layers stray from it, in half widths of the kernels' own interval:
/// split conformal over all layers, each against the factor of the others of its combination.
/// @param predictor  made from the kernels alone, measured in the same rounds as the layers.
Closures fit_closures(const std::vector<ExecutedLayer>& layers, const Predictor& predictor);

/// Kernels, then what the layers executed beside them show beyond. @throws InputError as calibrate.
Calibration calibrate_with_layers(const Profile& profile, const std::vector<Measurement>& kernels,
                                  const std::vector<ExecutedLayer>& layers);

/// As a profile keeps it.
ExecutedLayer executed_layer(const ExecutedCase& executed);

}  // namespace moecast
