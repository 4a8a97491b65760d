#pragma once
#include <memory>

#include "hwprofiles/profile.h"
#include "sim/cost/calibration.h"
#include "sim/predictor.h"

namespace moecast {

/// A predictor on a calibration that is at hand (fresh from a measurement) instead of in a file.
std::unique_ptr<Predictor> make_predictor(Profile profile, std::shared_ptr<const Calibration> calibration,
                                          Engine engine = Engine::analytic);

}  // namespace moecast
