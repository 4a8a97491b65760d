#pragma once
#include <string>

#include "models/core/json.h"
#include "sim/predictor.h"

namespace moecast {

/// `phases` (in order, summing to the step), `backward_to_forward_ratio`, `trained_parameters`, `devices`,
/// `device_hours`; null where the prediction is of no training step, or has no latency.
Json training_json(const Prediction& prediction);

/// "forward 1.2 ms (31 %), backward ...; backward 2.1 x forward; 4.1e8 parameters trained". Empty without training.
std::string training_line(const Prediction& prediction);

}  // namespace moecast
