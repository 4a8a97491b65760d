#pragma once
#include <span>

#include "sim/step/expert_exchange.h"
#include "sim/step/operator_maker.h"

namespace moecast {

/// What of a step ranks have to tell each other.
struct StepCommunication {
  double all_reduces = 0;  ///< of hidden states, over tensor-parallel ranks
  bool embeds = true;      ///< the step has the embedding, whose result is reduced too
  std::span<const RoutedLayers> routed;
  bool wide = false;         ///< rows travel to experts on several nodes by DeepEP
  bool splits_rows = false;  ///< tensor-parallel ranks of replicas each take a part of the rows to experts
};

/// Adds collectives and exchanges of all layers, of the logits and of replicas.
void add_communication(const StepCommunication& what, OperatorMaker& maker);

}  // namespace moecast
