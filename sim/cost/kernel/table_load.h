#pragma once
#include <optional>
#include <span>

#include "hwprofiles/kernel_samples.h"
#include "models/routing/rank_load.h"

namespace moecast {

/// What the timed rank of a table's row really had to do, where it is not what the row's columns say: tables that asked
/// a router with expert groups for balanced rows, and one whose ranks computed whole tokens. The rest of the model is
/// asked for loads as they are.
/// @param row  in the order of the layout. @return nullopt: what the columns say.
std::optional<RankLoad> table_load(const KernelKey& key, std::span<const double> row, RankLoadCache& loads);

}  // namespace moecast
