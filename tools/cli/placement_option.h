#pragma once
#include <string>

#include "models/routing/placement.h"

namespace moecast {

/// "contiguous", "round-robin", "node-aware", "balanced", "map:0,0,1+2", and "servers:2" where some ranks only send.
/// @throws UsageError naming --placement.
PlacementSpec parse_placement(const std::string& text, int ranks, bool with_servers);

}  // namespace moecast
