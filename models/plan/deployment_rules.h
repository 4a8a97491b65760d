#pragma once
#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/engine.h"

namespace moecast {

/// Rules of an engine about degrees of parallelism that no division of the model breaks.
///
/// Experts lie on all ranks of a stage: ep * moe_tp = tp * dp * cp. An engine without mixed expert parallelism spreads
/// experts over all of these ranks or over none of them. Micro-batches need stages.
/// @throws InputError at the degree that breaks a rule ("ep", "moe_tp", "micro_batches"), naming the rule.
void require_allowed(const Architecture& architecture, const Deployment& deployment, const EngineSpec& engine);

bool has_experts(const Architecture& architecture);

}  // namespace moecast
