#include "models/plan/speculation.h"

#include <algorithm>
#include <string>

#include "models/core/error.h"

namespace moecast {

double tokens_per_step(int drafts, double acceptance) {
  double tokens = 1;
  double all_right = 1;
  for (int i = 0; i < drafts; ++i) tokens += all_right *= acceptance;
  return tokens;
}

std::size_t draft_modules(const Architecture& architecture) {
  const std::vector<Layer>& layers = architecture.multi_token_prediction;
  const bool parts = std::ranges::any_of(layers, [](const Layer& layer) { return layer.blocks.size() < 2; });
  return parts ? 1 : layers.size();
}

Architecture draft_stack(const Architecture& architecture, int guess) {
  const std::vector<Layer>& layers = architecture.multi_token_prediction;
  const std::size_t modules = draft_modules(architecture);
  const std::size_t module = std::min(static_cast<std::size_t>(guess), modules - 1);
  Architecture stack = architecture;
  stack.multi_token_prediction.clear();
  stack.decoder = modules == 1 ? layers : std::vector<Layer>{layers[module]};
  return stack;
}

void require_drafts(const Architecture& architecture, const Deployment& deployment, const Workload& workload) {
  const auto refuse = [](const std::string& what, const std::string& hint) {
    throw InputError("draft_tokens", what, hint);
  };
  if (deployment.draft_tokens == 0) {
    if (workload.acceptance) throw InputError("acceptance", "is of guesses, and none are made", "write --draft-tokens");
    return;
  }
  if (architecture.multi_token_prediction.empty()) {
    refuse(architecture.name + " has no layers of multi-token prediction", "leave them out");
  }
  if (workload.phase != Phase::decode && workload.phase != Phase::mixed && workload.phase != Phase::prefill) {
    refuse("are guessed while a decoder generates", "choose decode, prefill or mixed");
  }
  if (workload.phase != Phase::prefill && !workload.acceptance) {
    throw InputError("acceptance", "of guesses is not known",
                     "write --acceptance 0.8: how often a guess is right where those before it were");
  }
  if (workload.acceptance && !(*workload.acceptance >= 0 && *workload.acceptance <= 1)) {
    throw InputError("acceptance", std::to_string(*workload.acceptance) + " is no probability", "write 0 to 1");
  }
  if (deployment.pp > 1) refuse("with pipeline stages are not supported yet", "leave out --pp or the guesses");
  if (deployment.cp > 1) refuse("with context parallelism are not supported yet", "leave out --cp or the guesses");
  if (deployment.offload) refuse("with experts that are fetched are not supported yet", "leave one of them out");
}

}  // namespace moecast
