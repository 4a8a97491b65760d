#pragma once
#include <vector>

namespace moecast {

/// A micro-batch on a stage of a pipeline, forward or backward.
struct StagePass {
  int stage = 0;
  int micro_batch = 0;
  bool backward = false;
  friend bool operator==(const StagePass&, const StagePass&) = default;
};

/// One forward and one backward pass in turn on every stage, once a stage has as many micro-batches on their way as
/// stages follow it (1F1B; Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters").
/// @return all passes, each after those whose results it needs. @param stages, micro_batches  at least 1.
std::vector<StagePass> one_forward_one_backward(int stages, int micro_batches);

}  // namespace moecast
