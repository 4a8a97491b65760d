#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "models/core/error.h"
#include "models/plan/graph.h"
#include "models/routing/expert_cache.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"
#include "sim/event/block_routing.h"
#include "sim/event/ep_study.h"
#include "sim/event/layer_kinds.h"
#include "sim/event/layer_popularity.h"
#include "sim/step/expert_exchange.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/placed_experts.h"
#include "sim/step/popularity.h"

namespace moecast {
namespace {

/// Whole experts over ep ranks; where nobody says otherwise, attention is data-parallel over as many.
Deployment spread(Deployment deployment) {
  if (deployment.cp != 1)
    throw InputError("cp", "is not executed by the event engine yet", "leave it out, or ask the analytic engine");
  if (deployment.draft_tokens != 0) {
    throw InputError("draft_tokens", "are not supported yet by the event engine", "write --engine analytic");
  }
  if (deployment.pp != 1) {
    throw InputError(
        "pp", fmt::format("{} pipeline stages: routings are planned of one stage at a time", deployment.pp), "--pp 1");
  }
  if (deployment.moe_tp.value_or(1) != 1) {
    throw InputError("moe_tp", "experts that are cut are not executed by the event engine yet", "--moe-tp 1");
  }
  if (deployment.tp == 1 && deployment.dp == 1) deployment.dp = deployment.ep;
  if (deployment.tp * deployment.dp != deployment.ep) {
    throw InputError("ep",
                     fmt::format("{} ranks hold whole experts, tp x dp = {} x {} ranks hold the rest", deployment.ep,
                                 deployment.tp, deployment.dp),
                     "ep = tp x dp");
  }
  return deployment;
}

/// How experts are placed: copies are placed by popularity, as the analytic engine has them.
PlacementSpec placement_of(const Deployment& deployment, const EpOptions& options, const Topology& topology) {
  PlacementSpec spec = options.placement;
  spec.ranks_per_node = topology.ranks_per_node();
  if (deployment.redundant_experts == 0) return spec;
  const bool by_load = spec.kind == PlacementKind::contiguous || spec.kind == PlacementKind::balanced;
  if (!by_load || options.slots_per_rank > 0) {
    throw InputError("redundant_experts",
                     options.slots_per_rank > 0 ? "say how many slots there are, as --slots does"
                                                : "are placed by popularity, not by number",
                     "give one of the two");
  }
  return PlacementKind::balanced;
}

/// Experts that a rank holds in balanced placement.
int slots_of(const Deployment& deployment, const EpOptions& options, std::int64_t experts) {
  const int copies = deployment.redundant_experts;
  if (copies > 0) {
    check_copies(experts, deployment.ep, copies);
    return static_cast<int>((experts + copies) / deployment.ep);
  }
  return options.slots_per_rank > 0 ? options.slots_per_rank
                                    : static_cast<int>((experts + deployment.ep - 1) / deployment.ep) + 1;
}

RailChange rail_change_of(DispatchMethod method) {
  switch (method) {
    case DispatchMethod::low_latency: return RailChange::never;
    case DispatchMethod::normal: return RailChange::at_receiver;
    default: return RailChange::at_sender;
  }
}

/// What a recorded routing is said to be, where the model has other layers.
void note_layers(const EpPlan& plan, const Workload& workload, std::vector<std::string>& notes) {
  if (!workload.load.trace) return;
  const std::size_t recorded = workload.load.trace->layers.size();
  if (recorded == plan.study_of.size()) return;
  notes.push_back(fmt::format("the trace holds {} layers, the model {} with experts: {}", recorded,
                              plan.study_of.size(),
                              recorded < plan.study_of.size() ? "they take turns" : "the first ones are used"));
}

std::vector<double> slowdowns(const EpOptions& options, int ranks) {
  std::vector<double> factors;
  for (const auto& [rank, factor] : options.slow_ranks) {
    if (rank < 0 || rank >= ranks) {
      throw InputError("slow rank", fmt::format("{} of {} ranks", rank, ranks), "ranks count from 0");
    }
    factors.resize(static_cast<std::size_t>(ranks), 1.0);
    factors[static_cast<std::size_t>(rank)] = factor;
  }
  return factors;
}

/// Tokens of the rank that has most: sequences stay whole.
double fullest_rows(const Workload& w, int dp) {
  const auto on_rank = [dp](std::int64_t sequences) { return static_cast<double>((sequences + dp - 1) / dp); };
  const auto prompt = static_cast<double>(w.prompt);
  switch (w.phase) {
    case Phase::prefill: return on_rank(w.batch) * prompt;
    case Phase::mixed: return on_rank(w.batch) + on_rank(w.prefill_batch) * prompt;
    case Phase::decode: return on_rank(w.batch);
    default: return step_tokens(w) / dp;
  }
}

/// The engine has DeepEP carry rows between nodes.
bool by_deepep(const GpuMachine& machine, const Deployment& deployment, const EpOptions& options) {
  return options.deepep_between_nodes && is_wide_expert_parallelism(deployment, machine.kernels->device.node_devices);
}

/// How rows of a whole model reach experts, where nobody says: engines gather those of all replicas of attention, whose
/// tensor-parallel ranks have them all, or each its part.
ExchangeAlgorithm usual_exchange(const GpuMachine& machine, const Deployment& deployment, const EpOptions& options) {
  const bool told = options.dispatch || !options.kernel.empty() || options.chunks > 1 || options.batches > 1 ||
                    options.shadowed_experts > 0;
  if (told || deployment.ep < 2 || by_deepep(machine, deployment, options)) return ExchangeAlgorithm::direct;
  if (deployment.dp == 1) return ExchangeAlgorithm::all_reduce;
  const bool parts = deployment.tp == 1 || options.split_rows;
  return parts ? ExchangeAlgorithm::all_gather : ExchangeAlgorithm::gather_reduce;
}

/// What a round of an exchange waits for the one before.
double round_start_s(const Topology& topology, std::vector<std::string>& notes) {
  const MessageStart start = topology.message_start(topology.nodes() > 1);
  if (start.origin != Origin::assumed) return start.seconds;
  const std::string text = fmt::format("a round of the exchange: {:.1f} us assumed", 1e6 * start.seconds);
  if (std::ranges::find(notes, text) == notes.end()) notes.push_back(text);
  return start.seconds;
}

/// Layers of the trace that layers of the next study take: layer i of the model has those of the trace's layer i modulo
/// its number of layers.
std::vector<std::size_t> recorded_layers(const EpPlan& plan, const RoutingTrace& trace) {
  std::vector<std::size_t> layers;
  for (std::size_t i = 0; i < plan.study_of.size(); ++i) {
    if (plan.study_of[i] == std::ssize(plan.studies)) layers.push_back(i % trace.layers.size());
  }
  return layers;
}

/// Share of the tokens that chose each expert in each layer of the next study.
std::vector<std::vector<double>> recorded_use(const EpPlan& plan, const RoutingTrace& trace, std::size_t experts) {
  std::vector<std::vector<double>> used;
  for (const std::size_t layer : recorded_layers(plan, trace))
    used.push_back(recorded_shares(trace, static_cast<std::int64_t>(experts), layer));
  return used;
}

/// Where the experts of each layer of the next study are. Experts of a recorded load are known by their numbers, those
/// of a law only by how popular they are.
void place_layers(const EpPlan& plan, const Workload& workload, const PlacementSpec& placement, int slots,
                  const EpOptions& options, RoutingStudy& study) {
  const int groups = std::max(1, study.policy.groups);
  const int ranks = study.topology.ranks();
  // The balancer sees rows, as a server counts them.
  const auto rows_of = [&](const std::vector<double>& popularity) {
    return study.policy.kind == RoutingPolicyKind::token_choice ? inclusion_probability(popularity, study.policy.top_k)
                                                                : popularity;
  };
  const auto rows = [&] { return rows_of(study.popularity); };
  if (options.orders.active()) {
    study.orders = options.orders;
    study.orders_seed = options.seed;
    study.popularity = ordered_popularity(std::move(study.popularity), groups);
    ExpertOrders orders(static_cast<int>(study.popularity.size()), groups, study.layers, study.orders,
                        study.orders_seed);
    study.placements = place_ordered(placement, rows(), orders, groups, ranks, study.layers, slots);
  } else if (const RoutingTrace* trace = workload.load.trace.get()) {
    const std::size_t experts = study.popularity.size();
    study.layer_popularity = recorded_use(plan, *trace, experts);
    study.placements = place_recorded(placement, study.layer_popularity, groups, ranks, slots);
  } else if (draws_popularity(workload)) {
    study.layer_popularity = drawn_layers(workload, static_cast<std::int64_t>(study.popularity.size()), study.layers);
    std::vector<std::vector<double>> of_layers;
    for (const std::vector<double>& popularity : study.layer_popularity) of_layers.push_back(rows_of(popularity));
    study.placements = place_recorded(placement, of_layers, groups, ranks, slots);
  } else if (!workload.rows_per_expert.empty() || workload.load.kind == LoadKind::histogram) {
    const std::vector<std::vector<double>> alike(static_cast<std::size_t>(study.layers), rows());
    study.placements = place_recorded(placement, alike, groups, ranks, slots);
  } else {
    study.placements = make_placements(placement, rows(), groups, ranks, study.layers, slots, options.seed);
  }
}

/// Where experts of the block are fetched. Over a link that nobody knows, none: the caller says so.
void add_fetch(const EpPlan& plan, const MoeBlock& block, const EpOptions& options, const Workload& workload,
               RoutingStudy& study) {
  const auto layers =
      std::ranges::find_if(plan.offloaded, [&](const OffloadedLayers& l) { return l.runs && l.block == block; });
  if (layers == plan.offloaded.end()) return;
  const std::pair<bool, const char*> others[] = {
      {options.placement.kind == PlacementKind::balanced, "--placement balanced"},
      {options.placement.kind == PlacementKind::map, "--placement map"},
      {plan.deployment.redundant_experts > 0, "--redundant-experts"},
      {options.chunks > 1, "--chunks"},
      {options.batches > 1, "--batches"},
      {options.shadowed_experts > 0, "--shadow"},
      {options.orders.active(), "--correlation and --drift"}};
  for (const auto& [asked, flag] : others) {
    if (asked) {
      throw InputError("offload", fmt::format("is not executed beside {} yet", flag),
                       fmt::format("leave out {}", flag));
    }
  }
  if (!plan.link) return;
  ExpertFetch& fetch = study.fetch;
  fetch.resident = layers->resident;
  fetch.policy = plan.deployment.offload->policy;
  fetch.overlap = plan.deployment.offload->overlap;
  fetch.expert_bytes = layers->expert.value();
  fetch.start_s = kFetchStart;
  fetch.bandwidth = plan.link->bandwidth.value();
  const bool chosen = study.policy.kind == RoutingPolicyKind::token_choice ||
                      study.policy.kind == RoutingPolicyKind::hierarchical ||
                      study.policy.kind == RoutingPolicyKind::hash;
  const double decisions = step_tokens(workload) / study.policy.tokens_per_decision;
  if (workload.load.trace) {
    fetch.touched = recorded_use(plan, *workload.load.trace, study.popularity.size());
    return;
  }
  const auto touched_of = [&](const std::vector<double>& popularity) {
    return chosen ? touch_probability(inclusion_probability(popularity, study.policy.top_k), decisions)
                  : std::vector<double>(popularity.size(), 1.0);
  };
  if (study.layer_popularity.empty()) fetch.touched = {touched_of(study.popularity)};
  for (const std::vector<double>& popularity : study.layer_popularity) fetch.touched.push_back(touched_of(popularity));
}

}  // namespace

GpuMachine read_gpu_machine(const std::string& folder) {
  GpuMachine machine;
  machine.profile = read_profile(folder);
  machine.kernels = std::make_shared<const KernelCalibration>(read_kernel_calibration(folder, machine.profile.name));
  return machine;
}

EpPlan plan_ep(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
               const Deployment& asked, const Workload& workload, const EpOptions& options, const Predictor* analytic) {
  if (asked.eager && (analytic == nullptr || is_lone_block(architecture))) {
    throw InputError("eager", "a layer by itself is timed without the host that launches it", "ask about a model");
  }
  if (workload.phase == Phase::train) {
    throw InputError("phase", "routings of a training step are not sampled", "ask the analytic engine");
  }
  if (workload.load.trace && options.noise != RoutingNoise::none && options.noise_strength > 0) {
    throw InputError("load", "a recorded routing has the noise that it has", "leave out --noise");
  }
  EpPlan plan;
  const bool whole = analytic != nullptr && !is_lone_block(architecture);
  plan.deployment = spread(asked);
  if (whole && plan.deployment.backend.empty()) plan.deployment.backend = kUsualEngine;
  const HardwareQuantity* capacity = machine.profile.find("memory_capacity");
  plan.deployment = with_resident_experts(architecture, plan.deployment, workload,
                                          capacity != nullptr ? std::optional(Bytes(capacity->value)) : std::nullopt);
  plan.offloaded = offloaded_layers(architecture, plan.deployment, workload);
  if (plan.deployment.offload) plan.link = host_link(machine.profile, *plan.deployment.offload);
  const int ranks = plan.deployment.ep;
  Topology topology(cluster, ranks, &machine.profile);
  Topology measured(without_taper(cluster), ranks, &machine.profile);
  for (const auto& [link, factor] : options.slow_links) topology.scale_link(link, factor);
  if (options.flows == FlowModel::exact && ranks > kMostExactRanks) {
    throw InputError("flows", fmt::format("of every pair of {} ranks; up to {} are simulated", ranks, kMostExactRanks),
                     "--flows port");
  }
  const double tokens = step_tokens(workload);
  const double tokens_per_rank = tokens / ranks / options.batches;
  const PlacementSpec placement = placement_of(plan.deployment, options, topology);
  plan.exchange =
      options.exchange.value_or(whole ? usual_exchange(machine, plan.deployment, options) : ExchangeAlgorithm::direct);
  const bool direct = plan.exchange == ExchangeAlgorithm::direct;
  if (!options.exchange && sees_all_rows(plan.exchange)) {
    plan.notes.push_back(fmt::format("rows reach experts by {}, as the engine has it: --dispatch says otherwise",
                                     to_string(plan.exchange)));
  }
  plan.method = options.dispatch.value_or(direct ? usual_dispatch_method(*machine.kernels, measured, tokens_per_rank)
                                                 : DispatchMethod::nccl);
  if (asked.eager) plan.notes.emplace_back(kEagerNote);
  const bool deepep = plan.method == DispatchMethod::low_latency || plan.method == DispatchMethod::normal;
  if (analytic != nullptr && deepep && !options.dispatch && !by_deepep(machine, plan.deployment, options)) {
    plan.notes.emplace_back(
        "rows travel by DeepEP; an engine that is not told to use it gathers them from all ranks, as the analytic "
        "engine says: --exchange all-gather");
  }
  for (Topology* wires : {&topology, &measured}) wires->change_rails(rail_change_of(plan.method));
  for (const std::string& assumed : topology.assumed()) plan.notes.push_back(assumed);
  const auto [kinds, of_layer] = layer_kinds(architecture, workload);
  plan.study_of = of_layer;
  if (kinds.empty()) {
    throw InputError(architecture.name, "has no MoE layer", "the event engine of GPUs answers for MoE layers");
  }
  note_layers(plan, workload, plan.notes);
  if (analytic != nullptr && !is_lone_block(architecture)) {
    plan.around = step_around(*analytic, architecture, plan.deployment, workload, options.batches,
                              static_cast<int>(of_layer.size()));
  }
  for (const LayerKind& kind : kinds) {
    const MoeBlock& block = *kind.block;
    if (const std::string what = unsupported(block); !what.empty()) {
      throw InputError(architecture.name,
                       fmt::format("{}: {} is not executed by the event engine yet", kind.name, what));
    }
    const ExpertSpec& expert = block.experts.front().expert;
    const DType dtype = plan.deployment.dtype.value_or(architecture.expert_dtype.value_or(architecture.dtype));
    plan.bytes_per_weight = bytes_per_weight(dtype);
    const std::int64_t experts = block.expert_count();
    RoutingStudy study(topology, measured);
    study.popularity = popularity_of(
        workload, experts, static_cast<int>(std::max(block.router.groups, block.router.coarse_experts)), options.seed);
    EpLayer layer;
    layer.hidden = block.latent_width > 0 ? block.latent_width : architecture.hidden;
    if (block.latent_width > 0) layer.input = architecture.hidden;
    layer.router_hidden = block.router.mlp_widths;
    layer.router_network = block.router.network != RouterNetwork::none && block.router.kind != RouterKind::hash;
    layer.width = expert.width;
    layer.experts = experts;
    layer.top_k = block.router.top_k;
    layer.matrices = expert.gated ? 3 : 2;
    layer.shared_width = block.shared.count * block.shared.expert.width;
    layer.shared_gate = block.shared.count > 0 && block.shared.gate;
    if (block.dense_residual) layer.shared_width += block.dense_residual->width;
    layer.shared_width = (layer.shared_width + plan.deployment.tp - 1) / plan.deployment.tp;
    layer.tokens_per_rank = tokens_per_rank;
    layer.own_rows =
        (whole ? fullest_rows(workload, plan.deployment.dp) : tokens / plan.deployment.dp) / options.batches;
    layer.sent_rows = layer.own_rows / plan.deployment.tp;  // sequences stay whole: some ranks may have none
    layer.chunks = options.chunks;
    layer.load_variation = mean_variation(workload, study.popularity, kind.count);
    layer.fp8_inputs = options.fp8_inputs;
    layer.popularity_sigma = popularity_sigma(architecture, workload.load);
    std::tie(layer.framework, layer.version) = split_backend(plan.deployment.backend);
    layer.kernel = options.kernel;
    layer.dtype = dtype;
    layer.shared_dtype = plan.deployment.dtype.value_or(architecture.dtype);
    layer.method = plan.method;
    layer.exchange = plan.exchange;
    layer.tensor_ranks = plan.deployment.tp;
    EpCosts costs = make_ep_costs(machine.kernels, layer, measured);
    study.policy = policy_of(block, workload, architecture.name);
    if (options.noise == RoutingNoise::none) add_noise_note(block, plan.notes);
    study.policy.noise = options.noise;
    study.policy.noise_strength = options.noise_strength;
    study.capacity = block.capacity;
    study.tokens = static_cast<std::int64_t>(std::llround(tokens));
    study.layers = kind.count;
    study.chunks = options.chunks;
    study.batches = options.batches;
    study.traffic = costs.traffic;
    study.costs = std::move(costs.costs);
    study.costs.before_s = plan.around.before_s;
    study.options.slowdown = slowdowns(options, ranks);
    study.options.every_rank = options.every_rank;
    study.options.two_streams = options.chunks > 1 || options.batches > 1;
    study.options.exchange = plan.exchange;
    study.options.flows = options.flows;
    study.options.ranks_per_node = topology.ranks_per_node();
    study.options.tensor_ranks = plan.deployment.tp;
    if (!direct) study.options.round_s = round_start_s(topology, plan.notes);
    study.options.memory_bandwidth = machine.kernels->device.bandwidth;
    const double expert_bytes =
        layer.matrices * static_cast<double>(layer.hidden * layer.width) * plan.bytes_per_weight;
    const double row_bytes = 2.0 * 2 * static_cast<double>(layer.hidden + layer.width);  // bf16, read and written
    study.costs.experts_bytes = [expert_bytes, row_bytes](const RankLoad& load) {
      return load.distinct * expert_bytes + load.rows * row_bytes;
    };
    study.shadowed_experts = options.shadowed_experts;
    study.row_block = options.row_block;
    study.expert_bytes = expert_bytes;
    study.background_share = options.background_share;
    const int slots = slots_of(plan.deployment, options, experts);
    place_layers(plan, workload, placement, slots, options, study);
    add_fetch(plan, block, options, workload, study);
    for (const std::string& note : costs.notes) {
      if (std::ranges::find(plan.notes, note) == plan.notes.end()) plan.notes.push_back(note);
    }
    plan.studies.push_back({kind.count > 1 ? fmt::format("{} and {} like it", kind.name, kind.count - 1) : kind.name,
                            layer, std::move(study), std::move(costs.pieces)});
  }
  return plan;
}

}  // namespace moecast
