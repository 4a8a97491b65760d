#pragma once
#include <string>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/workload.h"

namespace moecast {

/// Equal blocks and how often they occur, in the order of the layers.
struct LayerKind {
  const MoeBlock* block;
  std::string name;
  int count;
};

struct LayerKinds {
  std::vector<LayerKind> kinds;
  std::vector<int> of_layer;  ///< of each MoE layer
};

/// Of the stacks that run in the step.
LayerKinds layer_kinds(const Architecture& architecture, const Workload& workload);

}  // namespace moecast
