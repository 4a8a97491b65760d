#include "sim/event/pipeline_order.h"

#include <algorithm>
#include <cstddef>

namespace moecast {
namespace {

/// What one stage does, in its order.
std::vector<StagePass> passes_of_stage(int stage, int stages, int micro_batches) {
  std::vector<StagePass> passes;
  const int ahead = std::min(stages - 1 - stage, micro_batches);
  for (int i = 0; i < ahead; ++i) passes.push_back({stage, i, false});
  for (int i = 0; i < micro_batches; ++i) {
    if (ahead + i < micro_batches) passes.push_back({stage, ahead + i, false});
    passes.push_back({stage, i, true});
  }
  return passes;
}

}  // namespace

std::vector<StagePass> one_forward_one_backward(int stages, int micro_batches) {
  std::vector<std::vector<StagePass>> waiting;
  for (int s = 0; s < stages; ++s) waiting.push_back(passes_of_stage(s, stages, micro_batches));
  const auto count = static_cast<std::size_t>(stages);
  std::vector<std::size_t> next(count, 0);
  std::vector<int> forward(count, 0);  // passes that were made
  std::vector<int> backward(count, 0);
  std::vector<StagePass> order;
  const auto total = 2 * count * static_cast<std::size_t>(micro_batches);
  while (order.size() < total) {
    for (std::size_t s = 0; s < count; ++s) {
      if (next[s] == waiting[s].size()) continue;
      const StagePass pass = waiting[s][next[s]];
      const bool ready = pass.backward ? s + 1 == count || backward[s + 1] > pass.micro_batch
                                       : s == 0 || forward[s - 1] > pass.micro_batch;
      if (!ready) continue;
      ++(pass.backward ? backward : forward)[s];
      ++next[s];
      order.push_back(pass);
    }
  }
  return order;
}

}  // namespace moecast
