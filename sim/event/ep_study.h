#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hwprofiles/cluster.h"
#include "models/plan/offload.h"
#include "models/routing/routing_trace.h"
#include "sim/analytic/offload_cost.h"
#include "sim/event/ep_costs.h"
#include "sim/event/routing_study.h"
#include "sim/event/step_around.h"
#include "sim/predictor.h"

namespace moecast {

/// How the MoE layers of a step are asked about, beyond deployment and workload.
struct EpOptions {
  int samples = 200;
  bool deepep_between_nodes = false;              ///< of the engine, as EngineSpec has it
  bool split_rows = false;                        ///< of the engine: EngineSpec::split_rows_to_experts
  Fp8Inputs fp8_inputs = Fp8Inputs::as_measured;  ///< of the engine's linear layers
  std::uint64_t seed = 1;
  int threads = 1;  ///< of the simulation; the result does not depend on it
  /// nullopt: usual_dispatch_method; nccl where the exchange is not direct.
  std::optional<DispatchMethod> dispatch;
  /// nullopt: of whole models as the engine does (all-gather between replicas of attention, all-reduce of
  /// tensor-parallel ranks, DeepEP between nodes where the engine has it), else direct.
  std::optional<ExchangeAlgorithm> exchange;
  FlowModel flows = FlowModel::port;
  std::string kernel;  ///< of the experts; empty: the one measured nearest
  PlacementSpec placement;
  int slots_per_rank = 0;  ///< of balanced placement; 0: one more than experts a rank
  int chunks = 1;
  int batches = 1;
  int shadowed_experts = 0;
  std::int64_t row_block = 1;  ///< rows that an expert computes are a multiple of this
  double background_share = 0;
  RoutingNoise noise = RoutingNoise::none;  ///< added to the router's scores
  double noise_strength = 0;
  OrderSeries orders;  ///< popularity ranks over layers and samples, which then are successive steps
  std::vector<std::pair<int, double>> slow_ranks;          ///< rank, factor on the time of its kernels
  std::vector<std::pair<std::string, double>> slow_links;  ///< link, factor on its bandwidth
  bool every_rank = false;                                 ///< a task a rank, with its memory bus: for pictures
  std::function<void(int done)> progress;
  const std::atomic<bool>* stop = nullptr;
};

/// Equal MoE layers of a model, ready to be sampled.
struct EpStudy {
  std::string name;  ///< "layers.3 and 57 like it"
  EpLayer layer;
  RoutingStudy study;
  std::vector<EpPiece> pieces;
};

/// Everything that `predict_ep` simulates; pictures draw it too.
struct EpPlan {
  std::vector<EpStudy> studies;  ///< one a kind of layer
  std::vector<int> study_of;     ///< of each MoE layer, in the order of the model
  Deployment deployment;         ///< dp filled in
  DispatchMethod method = DispatchMethod::normal;
  ExchangeAlgorithm exchange = ExchangeAlgorithm::direct;
  double bytes_per_weight = 2;
  StepAround around;                       ///< what lies around the MoE layers; zero where they are asked about alone
  std::vector<OffloadedLayers> offloaded;  ///< that do not hold all experts
  std::optional<HostLink> link;            ///< that these come over; nullopt: nobody knows, or none is needed
  std::vector<std::string> notes;          ///< what was assumed
};

/// A GPU and its calibrated kernels.
struct GpuMachine {
  Profile profile;
  std::shared_ptr<const KernelCalibration> kernels;
};
/// @throws InputError when the folder holds no calibrated kernels.
GpuMachine read_gpu_machine(const std::string& folder);

/// @param analytic  of the same machine: says what lies around the MoE layers. nullptr: they are asked about alone.
/// @throws InputError for an architecture without MoE layers, a deployment that is not expert-parallel in whole
/// experts, what no engine executes yet, ranks that the cluster lacks, a link that it lacks, a kernel that the profile
/// lacks.
EpPlan plan_ep(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
               const Deployment& deployment, const Workload& workload, const EpOptions& options,
               const Predictor* analytic = nullptr);

/// Samples of every study of a plan from windows of a recorded routing: window w is step w, the token of a line goes to
/// the next free place of its window. Layer i of the model takes the trace's layer i modulo its number of layers.
/// @param windows  at most as many as `trace_windows` says.
std::vector<std::vector<StepSample>> sample_trace(const EpPlan& plan, const RoutingTrace& trace, std::int64_t windows,
                                                  const EpOptions& options);

/// One window of a recorded routing, layer by layer in the order of the model.
/// @param window  from 0, below what `trace_windows` says. @param layers  so many at most.
/// @param observer  sees each layer's events.
void replay_window(const EpPlan& plan, const RoutingTrace& trace, std::int64_t window, std::int64_t layers,
                   const RoutingSimulator::Observer& observer);

/// One step over sampled routings: latency is their mean, `distribution` its percentiles, the interval that of the
/// kernels' costs. @param analytic  as for plan_ep. Where it says nothing of a model, the answer is that of the MoE
/// layers alone, and a warning says so.
Prediction predict_ep(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                      const Deployment& deployment, const Workload& workload, const EpOptions& options,
                      const Predictor* analytic = nullptr);

/// The same of an engine that overlaps two batches: of one or of two, whichever is faster.
/// @param options  `batches` of the answer comes back in it.
Prediction predict_ep_overlapped(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                                 const Deployment& deployment, const Workload& workload, EpOptions& options,
                                 const Predictor* analytic = nullptr);

}  // namespace moecast
