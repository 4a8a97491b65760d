#pragma once
#include "tools/c/machine.h"
#include "tools/c/moecast.h"

namespace moecast {

/// Answers a lone layer, as moecast_estimate_latency does.
/// @param config    its texts may be null. @param estimate  all but struct_size is written.
/// @throws UsageError for a field that is out of range or contradicts another.
void estimate_layer(const AskedMachine& machine, const moecast_moe_config& config, moecast_estimate& estimate);

}  // namespace moecast
