#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/core/origin.h"
#include "models/core/units.h"
#include "models/plan/deployment.h"
#include "models/plan/operator.h"
#include "models/plan/workload.h"

namespace moecast {

enum class Status { ok, does_not_fit, outside_range };

struct MemoryPerRank {
  Bytes weights;
  Bytes kv_cache;
  Bytes activations;
  Bytes workspace;
  std::optional<Bytes> capacity;  ///< nullopt = the profile does not know
  Bytes gradients{};              ///< these three: training only
  Bytes optimizer_states{};
  Bytes saved_activations{};
  [[nodiscard]] Bytes total() const {
    return weights + kv_cache + activations + workspace + gradients + optimizer_states + saved_activations;
  }
};

/// The four factors of every answer, and compute. Seconds are exclusive shares of the latency.
struct Factors {
  Seconds all_to_all;
  Seconds memory_bandwidth;
  Seconds compute;
  Seconds routing_overhead;
  /// t(1) / (n t(n)) on n devices, see rate_expert_parallelism, which fills it in; 1 without expert parallelism,
  /// nullopt = not known. Rarely above 1.
  std::optional<double> expert_parallel_efficiency_ratio;
};

/// Switches that remove one factor each: removing one never slows.
struct Without {
  bool all_to_all = false;
  bool memory_bandwidth = false;
  bool routing_overhead = false;
  bool expert_imbalance = false;
  bool memory_capacity = false;  ///< what does not fit is timed all the same
};

struct OperatorCost {
  std::string kind;
  std::string name;
  std::string stage;
  double count = 1;
  Seconds latency;  ///< all `count` executions
  Origin origin = Origin::assumed;
  TrainingPhase phase = TrainingPhase::forward;
  // Of all executions, as physics has it: useful arithmetic, and bytes that have to be moved at least. nullopt: none of
  // these is what its time is made of (collectives, the host), or nobody knows.
  std::optional<Flops> flops{};
  std::optional<Bytes> bytes{};
  std::optional<double> half_width{};  ///< of a 90 % interval of ln latency; nullopt: nothing was measured
};

/// What a training step is made of. Phases come one after another and sum to the step.
struct TrainingCosts {
  std::array<Seconds, kTrainingPhases> latency{};  ///< by TrainingPhase
  std::array<Flops, kTrainingPhases> flops{};      ///< the same, of a rank
  double trained_parameters = 0;                   ///< of the whole model
  double devices = 1;                              ///< that the step occupies
};

/// One step over sampled routings.
struct StepDistribution {
  int samples = 0;
  std::uint64_t seed = 0;
  Seconds mean, p50, p90, p99;
  double row_imbalance = 1;              ///< rows of the fullest rank (of one rank: expert) over the mean
  double port_imbalance = 1;             ///< fullest link over that of uniform routing
  double distinct_ratio = 1;             ///< experts with at least one row
  double dropped_ratio = 0;              ///< rows that a capacity drops or puts off
  std::optional<double> expert_balance;  ///< time of experts, mean over ranks, over the slowest rank's; null: none
  int contended_layers = 0;  ///< of all samples: those in which something was shared, so that events were simulated
};

/// A step that passes through pipeline stages.
struct PipelineReport {
  struct Stage {
    std::int64_t first_layer = 0;
    std::int64_t layers = 0;
    Seconds latency;  ///< of the largest micro-batch
  };
  std::vector<Stage> stages;
  std::vector<Seconds> transfers;      ///< from each stage to the next, of the largest micro-batch
  std::int64_t micro_batches = 1;      ///< of a rank
  Seconds fill_drain;                  ///< a step with nothing before and nothing after it
  Seconds period;                      ///< between two tokens of a sequence while generation goes on
  double fill_drain_bubble_ratio = 0;  ///< share of that time that stages wait
  double period_bubble_ratio = 0;
};

/// Experts that were fetched in a step, on the rank that fetches most.
struct OffloadUse {
  ResidencyPolicy policy = ResidencyPolicy::lru;
  FetchOverlap overlap = FetchOverlap::none;
  std::int64_t experts = 0;            ///< of a MoE layer on a rank
  std::int64_t resident = 0;           ///< of these, held
  double hit_ratio = 1;                ///< of the experts that a layer uses, those that were there; all ranks together
  double missed = 0;                   ///< experts that a layer fetches, mean
  Bytes expert;                        ///< weights of one
  Bytes fetched;                       ///< of a step, mean
  Bytes host;                          ///< weights that are not held: the host's memory, or the disk, has to
  std::optional<BytesPerSecond> link;  ///< nullopt: nobody knows
  Origin link_origin = Origin::assumed;
  Seconds transfer;  ///< of all that is fetched
  Seconds exposed;   ///< part of it that nothing hides
};

/// Tokens that layers of multi-token prediction guess, and what checking them gains.
struct SpeculationReport {
  int draft_tokens = 0;
  double acceptance_ratio = 0;
  double tokens_per_step = 1;  ///< of a sequence, on average
  Seconds tpot;                ///< the step over that many tokens; of sequences that generate
  Seconds tpot_low, tpot_high;
  Seconds drafting;  ///< part of the step that guesses
};

struct Prediction {
  Status status = Status::ok;
  std::string reason;              ///< empty when ok
  std::optional<Seconds> latency;  ///< nullopt unless status ok
  std::optional<Seconds> low;      ///< 90 % interval
  std::optional<Seconds> high;
  double confidence_ratio = 0.9;
  std::optional<double> throughput_tokens_per_s;
  Factors factors;
  MemoryPerRank memory;
  double total_parameters = 0;
  double active_parameters = 0;
  std::optional<Flops> flops;  ///< of the step on a rank; nullopt where parts have no operators yet
  std::string bottleneck;      ///< router, all_to_all, memory_bandwidth, compute, straggler, launch, host_link
  Origin origin = Origin::assumed;
  std::vector<OperatorCost> operators;
  std::vector<std::string> warnings;
  std::optional<StepDistribution> distribution;  ///< event engine only
  std::optional<PipelineReport> pipeline;        ///< several pipeline stages on GPUs only
  std::optional<TrainingCosts> training;         ///< training steps that have a latency
  std::optional<SpeculationReport> speculation;  ///< where tokens are guessed and sequences generate
  std::optional<OffloadUse> offload;             ///< where experts are fetched, or may be
};

/// analytic: closed form. event: the same operators as tasks that share the memory bus.
enum class Engine { analytic, event };

/// The one door: architecture + deployment + workload on a calibrated machine -> prediction.
class Predictor {
 public:
  /// @param folder  of a profile (profile.json, calibration.json).
  /// @throws InputError if it cannot be read or has another schema version.
  static std::unique_ptr<Predictor> load(const std::string& folder, Engine engine = Engine::analytic);
  virtual ~Predictor() = default;
  [[nodiscard]] virtual Prediction predict(const Architecture& architecture, const Deployment& deployment,
                                           const Workload& workload, const Without& without = {}) const = 0;
};

}  // namespace moecast
