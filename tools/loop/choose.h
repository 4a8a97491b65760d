#pragma once
#include <cstddef>
#include <vector>

#include "hwprofiles/measurement.h"
#include "sim/cost/cost_model.h"

namespace moecast {

/// Indices of the `count` candidates that a calibration is least sure about, spread apart.
///
/// Greedy: the largest uncertainty first, after which candidates of the same (kind, backend, dtype, threads) near a
/// chosen point count less (distance in log2 of the shape and footprint, one octave = near).
/// Points that are already measured are never chosen; fewer are returned when candidates run out.
std::vector<std::size_t> choose_uncertain(const CostModel& model, const std::vector<KernelPoint>& candidates,
                                          const std::vector<KernelPoint>& measured, std::size_t count);

/// Distance of two points of the same kind in octaves (Euclidean over log2 of shape columns and footprints).
double octave_distance(const KernelPoint& a, const KernelPoint& b);

}  // namespace moecast
