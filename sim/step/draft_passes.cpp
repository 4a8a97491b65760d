#include "sim/step/draft_passes.h"

#include "models/plan/speculation.h"

namespace moecast {

std::vector<DraftPass> make_draft_passes(const Architecture& architecture, const Deployment& deployment,
                                         const EngineSpec& engine, const KernelCalibration& kernels,
                                         const StepRouting& routing) {
  const int guesses = deployment.draft_tokens;
  const auto modules = static_cast<int>(draft_modules(architecture));
  Deployment later = deployment;
  later.draft_tokens = 0;
  std::vector<DraftPass> passes;
  for (int guess = 0; guess < guesses;) {
    const int repeats = guess > 0 && guess + 1 >= modules ? guesses - guess : 1;
    const Deployment& ranks = guess == 0 ? deployment : later;
    StepModel model(
        make_step_operators(draft_stack(architecture, guess), ranks, engine, kernels, routing, {.joins = true}), engine,
        ranks, kernels.device);
    passes.push_back({std::move(model), static_cast<double>(repeats), guess == 0});
    guess += repeats;
  }
  return passes;
}

}  // namespace moecast
