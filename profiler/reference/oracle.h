#pragma once
#include <cstdint>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"
#include "profiler/reference/matrix.h"
#include "profiler/reference/oracle_routing.h"
#include "profiler/reference/weights.h"

namespace moecast {

/// What one step of a model gives, computed plainly: fp64 Eigen matrices, every expert on every token and a mask,
/// full attention with a softmax over all scores. Rounds to the executed format where the runtime stores in it.
struct OracleResult {
  Matrix output;                     ///< [tokens, hidden], or [batch, vocabulary] logits
  std::vector<OracleRoute> routes;   ///< one a MoE block
  double combine_elements_read = 0;  ///< expert outputs that enter the weighted sums
  double combine_elements_written = 0;
};

struct OracleOptions {
  std::int64_t copy = 0;
  bool training = false;                          ///< adds the router's noise
  std::vector<std::vector<float>> planted_shift;  ///< one a MoE block, [tokens, experts]; empty = natural routing
};

/// @throws UsageError for what the runtime does not execute either (`require_executable`).
OracleResult run_oracle(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                        const WeightSource& source, const OracleOptions& options);

}  // namespace moecast
