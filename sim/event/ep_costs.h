#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hwprofiles/cluster.h"
#include "models/plan/engine.h"
#include "models/routing/traffic.h"
#include "sim/cost/kernel/kernel_calibration.h"
#include "sim/event/dispatch_method.h"
#include "sim/event/moe_layer.h"

namespace moecast {

/// One MoE layer under expert parallelism, as its kernels see it.
struct EpLayer {
  std::int64_t hidden = 0;                  ///< that experts see, and that travels
  std::optional<std::int64_t> input = {};   ///< of the layer, where tokens are projected to `hidden` and back
  std::vector<std::int64_t> router_hidden;  ///< widths of the router's hidden layers
  bool router_network = true;               ///< false: nothing is scored (hash)
  std::int64_t width = 0;
  std::int64_t experts = 0;
  std::int64_t top_k = 1;
  int matrices = 3;               ///< of an expert: 3 gated, 2 not
  std::int64_t shared_width = 0;  ///< of a rank, of all shared experts together; 0: none
  bool shared_gate = false;       ///< each token weighs what they say
  double tokens_per_rank = 1;     ///< of one batch
  double sent_rows = 0;           ///< that the rank with most sends to experts; 0: tokens_per_rank
  double own_rows = 0;            ///< that attention, router and shared experts of a rank see; 0: tokens_per_rank
  int chunks = 1;                 ///< parts in which experts compute a batch
  double load_variation = 0;      ///< coefficient of variation of the experts' popularity
  double popularity_sigma = 0;    ///< of ln(popularity of an expert)
  Fp8Inputs fp8_inputs = Fp8Inputs::as_measured;  ///< of linear layers
  std::string version;                            ///< of the framework's kernels; empty: the newest
  std::string framework;                          ///< "vllm"; empty: the one whose tables hold the dispatch
  std::string kernel;                             ///< of the experts; empty: the one measured nearest to the shape
  DType dtype = DType::bf16;                      ///< of the routed experts
  DType shared_dtype = DType::bf16;
  DispatchMethod method = DispatchMethod::normal;
  ExchangeAlgorithm exchange = ExchangeAlgorithm::direct;  ///< another one: of method nccl only
  int tensor_ranks = 1;                                    ///< that are one replica of attention, of gather_reduce
};

/// What one piece of a layer was predicted from.
struct EpPiece {
  std::string stage;         ///< router, shared, dispatch, experts, combine
  std::string kernel;        ///< key of the calibrated kernel
  std::string substitution;  ///< empty, or what it stands for
  double seconds = 0;        ///< at uniform routing
  double log_low = 0;        ///< of a 90 % interval of ln seconds, at most 0
  double log_high = 0;
  Origin origin = Origin::assumed;
};

struct EpCosts {
  MoeLayerCosts costs;
  TrafficOptions traffic;          ///< copies of a token, bytes of a row
  std::vector<EpPiece> pieces;     ///< in the order of a layer
  std::vector<std::string> notes;  ///< what was assumed
};

/// Costs of a layer's pieces from the calibrated kernels of a GPU. Closures share the calibration and may be called
/// from any thread.
/// @param measured  ranks and links of uniform traffic; its bandwidths replace the datasheet's.
/// @throws InputError where the profile holds no kernel of a piece, or the cluster is none that the method runs on.
EpCosts make_ep_costs(const std::shared_ptr<const KernelCalibration>& calibration, const EpLayer& layer,
                      const Topology& measured);

}  // namespace moecast
