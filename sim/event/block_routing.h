#pragma once
#include <string>
#include <vector>

#include "models/architecture/moe.h"
#include "models/plan/workload.h"
#include "models/routing/assignment.h"

namespace moecast {

/// What the event engine does not execute yet of a block; empty when all is there.
std::string unsupported(const MoeBlock& block);

/// What becomes of rows beyond a capacity.
CapacityOverflow overflow_of(const CapacitySpec& capacity);

/// Says that a router's own noise is not drawn: it is of training.
void add_noise_note(const MoeBlock& block, std::vector<std::string>& notes);

/// How the block's router chooses, for a step. @param name  of the model, for errors.
/// @throws InputError where sequences that are routed whole differ in length.
RoutingPolicy policy_of(const MoeBlock& block, const Workload& workload, const std::string& name);

}  // namespace moecast
