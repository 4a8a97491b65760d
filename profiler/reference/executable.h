#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"
#include "profiler/reference/arena.h"
#include "profiler/reference/counters.h"
#include "profiler/reference/matrix.h"
#include "profiler/reference/weights.h"
#include "profiler/timing/session.h"

namespace moecast {

struct ExecutableOptions {
  std::uint64_t seed = 1;
  /// alike: experts and copies hold the same numbers, which fills a gigabyte quickly (timing); distinct: for numbers.
  WeightVariety variety = WeightVariety::distinct;
  /// Routing is planted by Workload.rows_per_expert or Workload.load; false: whatever the random weights give.
  bool planted = true;
  bool training = false;         ///< adds the router's noise
  std::shared_ptr<Arena> arena;  ///< shared with other executables that run in turns; nullptr: an own one
};

/// A model, or a single MoE layer, with random weights that really runs on this CPU. The same (architecture,
/// deployment, workload) goes to the predictor.
class Executable {
 public:
  virtual ~Executable() = default;
  /// Brings the weights into the arena (again, if another executable was there since) and builds the primitives.
  virtual void prepare() = 0;
  /// One step on the next of Workload.copies copies. Every run starts from the same input.
  virtual void run() = 0;

  /// [tokens, hidden], or logits [batch, vocabulary], of the last run.
  [[nodiscard]] virtual Matrix output() const = 0;
  /// What plain fp64 Eigen code gives for the copy that ran last.
  [[nodiscard]] virtual Matrix reference_output() const = 0;
  /// Rows that every expert of a MoE block computed for tokens in the last run (after capacity); blocks count from 0.
  [[nodiscard]] virtual std::vector<std::int64_t> rows_per_expert(std::size_t moe_block) const = 0;
  [[nodiscard]] virtual std::size_t moe_blocks() const = 0;
  /// Work of the last run.
  [[nodiscard]] virtual const Counters& counters() const = 0;
  /// Stored weights (and KV cache) of all copies.
  [[nodiscard]] virtual Bytes weight_bytes() const = 0;
  /// Brings the caches into the state of steps that have run for long. Runs every copy at least once.
  virtual void settle() = 0;
  [[nodiscard]] virtual const Workload& workload() const = 0;
  [[nodiscard]] virtual int threads() const = 0;
};

/// @throws UsageError for what the runtime does not execute; DeviceError without the memory or the backend.
std::shared_ptr<Executable> make_executable(const Architecture& architecture, const Deployment& deployment,
                                            const Workload& workload, const ExecutableOptions& options = {});

/// Times whole runs: a sample goes through all copies.
std::unique_ptr<Job> make_layer_job(std::shared_ptr<Executable> executable);

}  // namespace moecast
