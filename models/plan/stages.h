#pragma once
#include <cstddef>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"

namespace moecast {

/// Layers [first, first + count) of a stack.
struct StageLayers {
  std::size_t first = 0;
  std::size_t count = 0;
  friend bool operator==(const StageLayers&, const StageLayers&) = default;
};

/// Which ends of a model a stage has.
struct StackEnds {
  bool embeds = true;
  bool heads = true;
};

/// Layers of each pipeline stage, in order: equally many, and one more each for as many stages as layers are left over.
/// @throws InputError at "pp" when a stage would have no layer.
std::vector<StageLayers> stage_layers(std::size_t layers, int pp, ExtraLayers extra);

/// The decoder of one stage as a model of its own. The embedding stays with the first stage; the head (the vocabulary)
/// is kept by the last one only.
Architecture stage_architecture(const Architecture& architecture, const StageLayers& layers);

}  // namespace moecast
