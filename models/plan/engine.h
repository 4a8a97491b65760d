#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "models/plan/deployment.h"

namespace moecast {

/// What a serving engine's host adds to kernels. Layers are those of the model.
struct EngineHost {
  static constexpr int kCount = 9;
  double layer_kernels_s = 0;      ///< of a layer: kernels of no table
  double prepare_s = 0;            ///< of a layer: host before the first kernel of a step with prefill
  double eager_gap_s = 0;          ///< of a layer: gaps of the GPU between eager kernels
  double token_bytes = 0;          ///< of a layer, prefill token and element of the hidden state
  double piece_launch_s = 0;       ///< of a layer: host launch of piecewise graphs
  double eager_launch_s = 0;       ///< of a layer: host launch of eager kernels
  double wake_s = 0;               ///< of a step with prefill after idling
  double graph_step_s = 0;         ///< of a replayed decode step
  double collective_launch_s = 0;  ///< of one eager collective

  /// In the order above, for fits.
  [[nodiscard]] std::array<double, kCount> values() const;
  static EngineHost of(const std::array<double, kCount>& values);
  static std::array<std::string_view, kCount> names();
};

/// Linear service law: what a token of output costs beyond the kernels of its step, fitted to end-to-end measurements.
struct EngineService {
  double kernel_factor = 1;   ///< on the kernel sum of a decode step
  double layer_s = 0;         ///< of a layer: kernels of no table and gaps
  double step_s = 0;          ///< host and sampler
  double stall_share = 1;     ///< of other requests' prefill that stalls decoding
  double prefill_factor = 1;  ///< on the kernel sum of prefill
  double first_token_s = 0;   ///< host part of a first token: of a model with experts; a quarter for others
  double request_s = 0;       ///< of a request that generates: sampler and host
};

/// Whose kernels and host answer where nobody names an engine.
inline constexpr const char* kUsualEngine = "vllm";

/// How an engine passes a step through pipeline stages.
struct EnginePipeline {
  ExtraLayers extra_layers = ExtraLayers::before_last;
  int tensors = 1;      ///< rows of the hidden width that a token takes to the next stage: hidden state, residual
  bool sliced = false;  ///< each tensor-parallel rank sends its share, which the next stage gathers; else all of it
};

/// How context-parallel ranks come to the keys and values of each other's tokens of a prompt.
enum class ContextExchange { all_gather, ring };

/// What linear layers in fp8 do with what comes in; those of the tables compute a scale of it, then quantise it.
enum class Fp8Inputs {
  as_measured,
  constant_scales,  ///< the checkpoint holds the scales
  quantised_before  ///< by the kernel before, and the checkpoint holds the scales
};

/// Tokens of a step and rank, decodes and chunks of prompts together, that engines take unless told otherwise.
inline constexpr int kUsualBatchedTokens = 8192;

/// models/plan/engines/<name>.json: what an engine issues, and what its host costs.
struct EngineSpec {
  std::string name;
  std::vector<double> graph_rows;    ///< captured sizes, ascending
  double largest_prefill_graph = 0;  ///< rows of a step with prefill that piecewise graphs serve
  /// Experts may be spread over some ranks and each be split over the others; else over all, or all split over all.
  bool mixed_expert_parallelism = true;
  bool deepep_between_nodes = false;  ///< rows travel to experts on several nodes by DeepEP, else by collectives
  /// Tensors that a row takes to the experts of other replicas of attention: itself, and who its experts are.
  int replica_tensors = 1;
  bool call_a_replica = false;  ///< replicas with unequally many rows exchange each tensor by one call a replica
  /// Tensor-parallel ranks of replicas each take a part of the rows to experts that are spread over all ranks.
  bool split_rows_to_experts = false;
  /// Steps for which replicas of attention hold back prompts until each of them has one; 0: prompts are computed as
  /// they come, and those of one replica hold up the others.
  int prompts_wait_steps = 0;
  /// Whose measured all-reduce runs inside a node (a framework of the kernel tables); empty: the engine's own.
  std::string all_reduce_framework;
  /// A step that generates computes prompts too, which reads the weights once; else prompts have steps of their own.
  bool mixes_prompts = true;
  bool reserves_outputs = false;  ///< a request is admitted when the cache has room for all that it may generate
  /// What the engine may use of a device's memory is a share of what weights and workspace leave free, not of all.
  bool caches_free_memory = false;
  bool two_batch_overlap = false;  ///< half of a batch computes while rows of the other half travel by DeepEP
  double shared_stream_rows = 0;   ///< rows of a step up to which shared experts run beside the routed ones; 0: never
  Fp8Inputs fp8_inputs = Fp8Inputs::as_measured;
  bool all_reduce_norms =
      false;  ///< an all-reduce inside a node adds the residual and norms: no kernel of its own does
  /// Kernels of experts that take one more, which every token chooses: a shared one as wide as the others.
  std::vector<std::string> shared_expert_kernels;
  EnginePipeline pipeline;
  ContextExchange context_exchange = ContextExchange::all_gather;
  EngineHost host;
  EngineService service;
  std::string host_source;  ///< what the constants were fitted to
  /// Standard deviations of a step's assumed error that a 90 % interval spans, on the deployment of the fit.
  double decode_interval = 1;
  double prefill_interval = 1;
  /// Model and machine whose steps the host constants come from; empty: none. Elsewhere the spread of left-out loads is
  /// what is known.
  std::string calibrated_model, calibrated_system;
  /// ln of measured over predicted that 90 % of left-out loads lie within: below (as a positive number) and above.
  std::array<double, 2> tpot_interval{};
  std::array<double, 2> ttft_interval{};

  /// Rows of the captured graph that serves so many; the rows themselves above the largest.
  [[nodiscard]] double padded_rows(double rows) const;
};

/// @throws InputError naming the pointer.
EngineSpec parse_engine_text(std::string_view text, const std::string& where);
/// FOLDER/<name>.json of a backend ("vllm-0.24.0" or "vllm"). @throws InputError when there is none, naming those
/// known.
EngineSpec read_engine(const std::string& folder, const std::string& backend);

}  // namespace moecast
