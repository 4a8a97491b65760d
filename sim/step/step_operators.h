#pragma once
#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/engine.h"
#include "models/plan/workload.h"
#include "sim/cost/kernel/kernel_calibration.h"

namespace moecast {

/// One engine step as a rank sees it.
struct StepShape {
  double rows = 0;         ///< tokens of this rank, padded where a captured graph is replayed
  double decodes = 0;      ///< sequences that generate
  double checked = 1;      ///< tokens of each of these: the next one, and guesses that are checked with it
  double decode_kv = 0;    ///< mean KV entries of these, the new ones included
  double context = 0;      ///< new tokens of prompts
  double prompts = 0;      ///< sequences that these belong to
  double prefix = 0;       ///< KV entries that the prompts already hold, of all together
  double expert_rows = 0;  ///< rows of all data-parallel ranks together
  double source = 0;       ///< encoded tokens of a sequence, which cross attention sees; those of prompts are new
};

/// Of a layer, that no table holds: norms (2), rotary with the cache's new entries, activation, residual.
inline constexpr double kSmallKernels = 5;
/// Where experts are: those, their choice, and the sum of what they give.
inline constexpr double kSmallMoeKernels = 7;

/// The part of a step that these are.
inline constexpr const char* kSmallKernelsPart = "norms, rotary, gates, sampler";

/// Tokens of a rank, not padded.
constexpr double new_tokens(const StepShape& shape) { return shape.decodes * shape.checked + shape.context; }

/// Kernels of one kind share their error over all layers of a step.
enum class StepGroup { gemm, shared, experts, recurrent, attention, head, communication };
inline constexpr std::size_t kStepGroups = 7;
std::string_view to_string(StepGroup group);
using StepTimes = std::array<double, kStepGroups>;

/// What a call moves and computes, as physics has it.
struct StepWork {
  double bytes = 0;
  double flops = 0;
};

/// A kernel of a step on one rank.
struct StepOperator {
  std::string name;    ///< "attention.qkv"
  std::string kernel;  ///< key of the calibrated kernel and what it stands for; "physics" where there is none
  StepGroup group = StepGroup::gemm;
  double count = 1;                                 ///< layers that run it
  std::function<double(const StepShape&)> seconds;  ///< of one call; no allocation
  std::function<StepWork(const StepShape&)> work{};
  bool limited = false;         ///< attention to a part of the context: a prefix is not as so many more new tokens
  bool shares_context = false;  ///< what context-parallel ranks exchange for attention: depends on all of a step
  /// Half width of ln(seconds), 90 %, beyond what holds for its group: of physics alone, or of a kernel whose shape is
  /// far from everything measured.
  double spread = 0;
  Origin origin = Origin::fitted;
};

/// Operator by which replicas of attention tell each other how many rows each has.
inline constexpr const char* kAgreement = "replicas.all_reduce";
/// Tensor-parallel ranks that took a part of the rows to experts each join the results.
inline constexpr const char* kJoinedParts = "experts.all_gather";

/// How evenly experts are chosen.
struct StepRouting {
  double sigma = 1.0;                       ///< of ln(popularity of an expert); 0: all alike
  std::optional<ExpertLoad> load{};         ///< nullopt: log-normal
  std::vector<ModalityShare> modalities{};  ///< as Workload has them
  std::vector<double> rows{};               ///< of each expert, of a layer by itself; empty: by popularity
  friend bool operator==(const StepRouting&, const StepRouting&) = default;
};

/// Which part of the model a pipeline stage is.
struct StepStage {
  bool embeds = true;  ///< it has the embedding
  bool joins = false;  ///< a module of multi-token prediction: joins each row with the embedding of the next token
};

struct StepOperators {
  std::vector<StepOperator> operators;
  std::vector<std::string> not_executed;  ///< parts of the model that no operator stands for
  std::vector<std::string> notes;
  double layers = 0;
  double moe_layers = 0;
  /// Layers by the kernels that no table holds, one with experts as the unit.
  [[nodiscard]] double launching_layers() const {
    return moe_layers + (kSmallKernels * (layers - moe_layers) - fused_norms) / kSmallMoeKernels;
  }
  double fused_norms = 0;  ///< of a step, that all-reduces compute
  double hidden = 0;
  double collectives = 0;  ///< of a step
  /// Rows up to which shared experts run in a stream of their own, beside the routed ones; 0: never.
  double shared_stream_rows = 0;
  /// Where two halves of a batch overlap computation and exchange: share of the multiprocessors that prompts' rows
  /// take.
  std::optional<double> overlapped;
};

/// What an engine executes in a step of a model (of one pipeline stage of it) on one of tp * dp * cp ranks, each
/// operator with its calibrated kernel.
///
/// Tensor parallelism: heads, widths and vocabulary are split over tp ranks, two all-reduces a layer and one of the
/// embedding. Data-parallel attention: rows are gathered before and scattered after each MoE layer over dp ranks.
/// Experts are spread over ep ranks, each expert over moe_tp. Context-parallel ranks share the new tokens of prompts
/// and the cache of all sequences: StepShape is what one of them has; rows that generate are on all of them.
/// @param calibration  must outlive the operators.
/// @throws InputError when a degree does not divide what it splits, or the profile has no GEMM or expert kernel at all.
StepOperators make_step_operators(const Architecture& architecture, const Deployment& deployment,
                                  const EngineSpec& engine, const KernelCalibration& calibration,
                                  const StepRouting& routing = {}, const StepStage& stage = {});

}  // namespace moecast
