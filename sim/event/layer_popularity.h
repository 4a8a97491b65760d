#pragma once
#include <cstdint>
#include <vector>

#include "models/plan/workload.h"

namespace moecast {

/// How popular each expert of a layer is, shares that sum to 1.
/// @param groups  of experts that are routed together: which one holds the popular experts of a law is a matter of
/// chance.
std::vector<double> popularity_of(const Workload& workload, std::int64_t experts, int groups, std::uint64_t seed);

/// Whether a law draws how popular each expert is, not only who is popular.
bool draws_popularity(const Workload& workload);

/// Every layer was trained by itself: draws of its own. The first one is `popularity_of`.
std::vector<std::vector<double>> drawn_layers(const Workload& workload, std::int64_t experts, int layers);

/// Coefficient of variation of the experts' popularity; of layers that are drawn, the mean of all.
double mean_variation(const Workload& workload, const std::vector<double>& popularity, int layers);

}  // namespace moecast
