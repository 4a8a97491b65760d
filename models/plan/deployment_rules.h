#pragma once
#include <string>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/engine.h"

namespace moecast {

/// Rules about degrees of parallelism that no division of the model breaks: experts lie on all ranks of a stage,
/// ep * moe_tp = tp * dp * cp, and micro-batches need stages.
/// @throws InputError at the degree that breaks a rule ("ep", "moe_tp", "micro_batches"), naming the rule.
void require_consistent(const Architecture& architecture, const Deployment& deployment);

/// What the engine does not run of a consistent deployment, to be said beside its prediction; empty where it runs it.
/// An engine without mixed expert parallelism spreads experts over all ranks of a stage or over none.
std::string not_offered(const Architecture& architecture, const Deployment& deployment, const EngineSpec& engine);

bool has_experts(const Architecture& architecture);

}  // namespace moecast
