#pragma once
#include "models/architecture/architecture.h"
#include "models/routing/load.h"

namespace moecast {

/// Standard deviation of ln(popularity) over the experts of a model's first MoE layer; 0 without one.
double popularity_sigma(const Architecture& architecture, const ExpertLoad& load);

}  // namespace moecast
