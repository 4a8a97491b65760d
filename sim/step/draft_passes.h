#pragma once
#include <vector>

#include "sim/step/step_model.h"

namespace moecast {

/// A pass through a module of multi-token prediction, which guesses a token of each sequence.
struct DraftPass {
  StepModel model;
  double times = 1;    ///< one after another
  bool first = false;  ///< it sees every row of the step; others a row of each sequence
};

/// Modules that guess Deployment::draft_tokens, one after another; the last one goes on. None without drafts.
/// @param kernels  is referred to.
std::vector<DraftPass> make_draft_passes(const Architecture& architecture, const Deployment& deployment,
                                         const EngineSpec& engine, const KernelCalibration& kernels,
                                         const StepRouting& routing = {});

}  // namespace moecast
