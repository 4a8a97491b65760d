#include "models/plan/stages.h"

#include <string>

#include "models/core/error.h"

namespace moecast {

std::vector<StageLayers> stage_layers(std::size_t layers, int pp, ExtraLayers extra) {
  if (pp < 1) throw InputError("pp", "is " + std::to_string(pp), "expected at least 1");
  const auto stages = static_cast<std::size_t>(pp);
  if (stages > layers) {
    throw InputError("pp", std::to_string(pp) + " stages for " + std::to_string(layers) + " layers",
                     "a stage holds one layer at least");
  }
  std::vector<StageLayers> split(stages, {0, layers / stages});
  const std::size_t left = layers % stages;
  for (std::size_t i = 0; i < left; ++i) ++split[extra == ExtraLayers::first ? i : stages - 2 - i].count;
  for (std::size_t s = 1; s < stages; ++s) split[s].first = split[s - 1].first + split[s - 1].count;
  return split;
}

Architecture stage_architecture(const Architecture& architecture, const StageLayers& layers) {
  Architecture stage = architecture;
  const auto begin = architecture.decoder.begin() + static_cast<std::ptrdiff_t>(layers.first);
  stage.decoder.assign(begin, begin + static_cast<std::ptrdiff_t>(layers.count));
  if (layers.first + layers.count < architecture.decoder.size()) stage.vocabulary = 0;
  return stage;
}

}  // namespace moecast
