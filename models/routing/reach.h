#pragma once
#include <span>
#include <vector>

namespace moecast {

/// Probability that a token reaches each of some groups of experts: that at least one of the k distinct experts that it
/// draws by popularity belongs to it.
///
/// @param rates  popularity of each (expert, group) pair; of an expert with copies its share. Groups lie one after
/// another.
/// @param first  groups + 1 offsets into `rates`.
/// Exact up to the quadrature (1e-3) for experts that belong to one group; copies of an expert are taken as experts of
/// their own.
std::vector<double> reach_probabilities(std::span<const double> rates, std::span<const std::size_t> first, int top_k);

}  // namespace moecast
