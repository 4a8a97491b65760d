#pragma once
#include <optional>

#include "models/architecture/architecture.h"
#include "models/routing/load.h"

namespace moecast {

/// nullopt where sigma says all of it: of equal and of log-normal popularity.
std::optional<ExpertLoad> load_beyond_sigma(const ExpertLoad& load);

/// Standard deviation of ln(popularity) over the experts of a model's first MoE layer; 0 without one.
double popularity_sigma(const Architecture& architecture, const ExpertLoad& load);

}  // namespace moecast
