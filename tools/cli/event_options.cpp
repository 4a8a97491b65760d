#include "tools/cli/event_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <thread>
#include <tuple>

#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"
#include "tools/cli/placement_option.h"

namespace moecast {
namespace {

constexpr const char* kEventGroup = "Event engine";
constexpr int kMostRanks = 1'000'000;  ///< a map names some before anybody knows how many there are

int whole(const std::string& text, const char* flag, int fallback, std::int64_t low, std::int64_t high) {
  return text.empty() ? fallback : static_cast<int>(parse_count(text, flag, low, high));
}

/// "NAME:FACTOR", split at the last colon.
std::pair<std::string, double> named_factor(const std::string& text, const char* flag, const char* example) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == text.size()) {
    throw UsageError(flag, fmt::format("\"{}\" has no factor", text), fmt::format("write e.g. {}", example));
  }
  return {text.substr(0, colon), parse_number(text.substr(colon + 1), flag, 1e-6, 1e6)};
}

template <typename Value>
Value known_word(const std::string& text, const char* flag,
                 const std::function<std::optional<Value>(std::string_view)>& find,
                 const std::vector<std::string_view>& words) {
  if (const auto value = find(text)) return *value;
  const auto near = nearest_name(text, words);
  throw UsageError(
      flag, fmt::format("\"{}\" is not known", text),
      near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("write one of: {}", fmt::join(words, ", ")));
}

TrainingEventOptions links_and_ranks(const EventFlags& flags) {
  TrainingEventOptions options;
  if (!flags.background.empty()) options.background_share = parse_number(flags.background, "--background", 0, 0.99);
  for (const std::string& text : flags.slow_ranks) {
    const auto [rank, factor] = named_factor(text, "--slow-rank", "--slow-rank 3:1.5");
    options.slow_ranks.emplace_back(static_cast<int>(parse_count(rank, "--slow-rank", 0, 1'000'000)), factor);
  }
  for (const std::string& text : flags.slow_links) {
    options.slow_links.push_back(named_factor(text, "--slow-link", "--slow-link \"rank 3 port out:0.5\""));
  }
  return options;
}

void add_slow_inputs(const TrainingEventOptions& options, std::vector<InputValue>& inputs) {
  for (const auto& [rank, factor] : options.slow_ranks) {
    inputs.push_back({fmt::format("slow_rank_{}_ratio", rank), factor, true});
  }
  for (const auto& [link, factor] : options.slow_links) inputs.push_back({"slow_link " + link, factor, true});
}

}  // namespace

void add_event_options(const Command& command, EventFlags& flags, bool with_engine) {
  const auto text = [&](const char* name, std::string& value, const char* type, const char* help) {
    command.add_option(name, value, help).type_name(type).group(kEventGroup).not_empty();
  };
  if (with_engine) {
    text("--engine", flags.engine, "NAME",
         "analytic (default: closed form), event (sampled routings, shared links and memory)");
    text("--samples", flags.samples, "N", "Sampled routings (default 200)");
    text("--jobs", flags.jobs, "N", "Threads of the simulation (default: all CPUs); the answer does not depend on it");
  }
  text("--system", flags.system, "NAME",
       "How a published system runs MoE layers (moecast list systems): stands for --dispatch, --exchange, --placement, "
       "--chunks, --shadow, and the capacity of experts that have none");
  text("--cluster", flags.cluster, "NAME|FILE",
       "How ranks are wired (moecast list clusters; default: the device's); the analytic engine asks it only how many "
       "devices there are");
  text("--dispatch", flags.dispatch, "NAME",
       "deepep-low-latency, deepep-normal, nvlink-one-sided, nccl (default: by tokens and cluster)");
  text("--exchange", flags.exchange, "NAME",
       "direct, pairwise, ring, hierarchical, all-gather (and reduce-scatter), all-reduce (of rows that every rank "
       "has), gather-reduce (over replicas of attention, and inside each): of NCCL's kernels (default: of whole models "
       "as the engine does, else direct)");
  text("--flows", flags.flows, "MODEL",
       "port (default: links carry sums), exact (every pair takes its share of its route; up to 32 ranks)");
  text("--kernel", flags.kernel, "NAME",
       "Kernel of the experts (default: measured nearest; moecast explain --hw NAME)");
  text("--placement", flags.placement, "NAME",
       "contiguous (default), round-robin, node-aware (groups on nodes), balanced (by load, replicas), map:0,0,1+2 "
       "(ranks "
       "of each expert)");
  text("--slots", flags.slots, "N", "Experts a rank holds in balanced placement (default: one more than its share)");
  text("--chunks", flags.chunks, "N", "Parts of a layer's tokens that are pipelined (default 1)");
  text("--batches", flags.batches, "N",
       "2: two-batch overlap (default 1; predict: what is faster, of engines that overlap)");
  text("--shadow", flags.shadow, "N", "Most popular experts whose weights are sent to every rank (default 0)");
  text("--background", flags.background, "SHARE", "Of every link's bandwidth that other traffic takes (default 0)");
  text("--noise", flags.noise, "KIND:STRENGTH",
       "Noise of the router: gaussian:SD or uniform:RANGE, added to ln(popularity) (default none)");
  text("--correlation", flags.correlation, "RATIO",
       "Of the experts' popularity ranks in neighbouring layers, 0 (default) to 1 (the same order)");
  text("--drift", flags.drift, "RATIO",
       "Change of a layer's ranks from one sample to the next, 0 (default) to 1 (a new order): samples are steps");
  command.add_option("--slow-rank", flags.slow_ranks, "A rank whose kernels take FACTOR times as long; may be repeated")
      .type_name("RANK:FACTOR")
      .group(kEventGroup);
  command
      .add_option("--slow-link", flags.slow_links,
                  "A link with FACTOR of its bandwidth (\"rank 3 port out:0.5\"); may be repeated")
      .type_name("LINK:FACTOR")
      .group(kEventGroup);
}

Engine engine_of(const EventFlags& flags) {
  if (flags.engine == "event") return Engine::event;
  if (flags.engine != "analytic") {
    const auto near = nearest_name(flags.engine, {"analytic", "event"});
    throw UsageError("--engine", fmt::format("\"{}\" is not an engine", flags.engine),
                     near ? fmt::format("did you mean \"{}\"?", *near) : "write analytic or event");
  }
  const auto refuse = [](bool given, const char* flag) {
    if (given) throw UsageError(flag, "means nothing to the analytic engine", "write --engine event");
  };
  refuse(!flags.samples.empty(), "--samples");
  refuse(!flags.system.empty(), "--system");
  refuse(!flags.dispatch.empty(), "--dispatch");
  refuse(!flags.exchange.empty(), "--exchange");
  refuse(!flags.flows.empty(), "--flows");
  refuse(!flags.kernel.empty(), "--kernel");
  refuse(!flags.placement.empty(), "--placement");
  refuse(!flags.slots.empty(), "--slots");
  refuse(!flags.chunks.empty(), "--chunks");
  refuse(!flags.batches.empty(), "--batches");
  refuse(!flags.shadow.empty(), "--shadow");
  refuse(!flags.background.empty(), "--background");
  refuse(!flags.noise.empty(), "--noise");
  refuse(!flags.correlation.empty(), "--correlation");
  refuse(!flags.drift.empty(), "--drift");
  refuse(!flags.jobs.empty(), "--jobs");
  refuse(!flags.slow_ranks.empty(), "--slow-rank");
  refuse(!flags.slow_links.empty(), "--slow-link");
  return Engine::analytic;
}

EngineSpec take_engine(const DataFolders& folders, const Query& query, EpOptions& options) {
  const std::string& backend = query.deployment.backend;
  const bool whole = !is_lone_block(query.architecture);
  if (backend.empty() && !whole) return {};
  EngineSpec engine = read_engine(folders.engines, backend.empty() ? std::string(kUsualEngine) : backend);
  options.fp8_inputs = engine.fp8_inputs;
  options.deepep_between_nodes = engine.deepep_between_nodes;
  options.split_rows = engine.split_rows_to_experts;
  return engine;
}

EpOptions ep_options_of(const EventFlags& flags, std::uint64_t seed) {
  EpOptions options;
  options.seed = seed;
  options.samples = whole(flags.samples, "--samples", options.samples, 1, 1'000'000);
  options.threads =
      whole(flags.jobs, "--jobs", static_cast<int>(std::max(1U, std::thread::hardware_concurrency())), 1, 4096);
  if (!flags.dispatch.empty()) {
    options.dispatch = known_word<DispatchMethod>(flags.dispatch, "--dispatch", find_dispatch_method,
                                                  {"deepep-low-latency", "deepep-normal", "nvlink-one-sided", "nccl"});
  }
  if (!flags.exchange.empty()) {
    options.exchange = known_word<ExchangeAlgorithm>(
        flags.exchange, "--exchange", find_exchange_algorithm,
        {"direct", "pairwise", "ring", "hierarchical", "all-gather", "all-reduce", "gather-reduce"});
  }
  if (!flags.flows.empty()) {
    options.flows = known_word<FlowModel>(flags.flows, "--flows", find_flow_model, {"port", "exact"});
  }
  options.kernel = flags.kernel;
  if (!flags.placement.empty()) {
    options.placement = parse_placement(flags.placement, kMostRanks, false);
  }
  if (!flags.slots.empty() && options.placement.kind != PlacementKind::balanced) {
    throw UsageError("--slots", "means nothing without replicas", "write --placement balanced");
  }
  options.slots_per_rank = whole(flags.slots, "--slots", 0, 1, 65536);
  options.chunks = whole(flags.chunks, "--chunks", 1, 1, 64);
  options.batches = whole(flags.batches, "--batches", 1, 1, 2);
  if (options.batches > 1 && options.chunks > 1) {
    throw UsageError("--chunks", "and two overlapping batches exclude each other", "give one of the two");
  }
  options.shadowed_experts = whole(flags.shadow, "--shadow", 0, 0, 65536);
  const TrainingEventOptions others = links_and_ranks(flags);
  options.background_share = others.background_share;
  options.slow_ranks = others.slow_ranks;
  options.slow_links = others.slow_links;
  if (!flags.noise.empty()) std::tie(options.noise, options.noise_strength) = parse_noise(flags.noise);
  if (!flags.correlation.empty()) options.orders.correlation = parse_number(flags.correlation, "--correlation", 0, 1);
  if (!flags.drift.empty()) options.orders.drift = parse_number(flags.drift, "--drift", 0, 1);
  return options;
}

std::optional<MoeSystem> apply_system(EventFlags& flags, const DataFolders& folders) {
  if (flags.system.empty()) return std::nullopt;
  MoeSystem system;
  try {
    system = read_moe_system(folders.systems, flags.system);
  } catch (const InputError& error) {
    throw UsageError("--system", fmt::format("{} {}", error.where(), error.problem()), error.hint());
  }
  const auto stand_in = [](std::string& typed, const std::string& said) {
    if (typed.empty()) typed = said;
  };
  stand_in(flags.dispatch, flags.exchange.empty() ? system.dispatch : "");
  stand_in(flags.exchange, system.exchange);
  stand_in(flags.placement, system.placement);
  if (system.chunks > 1 && flags.batches != "2") stand_in(flags.chunks, std::to_string(system.chunks));
  if (system.shadowed_experts > 0) stand_in(flags.shadow, std::to_string(system.shadowed_experts));
  return system;
}

TrainingEventOptions training_options_of(const EventFlags& flags) {
  const auto refuse = [](const std::string& typed, const char* flag) {
    if (!typed.empty())
      throw UsageError(flag, "samples routings, and those of a training step are not", "leave it out");
  };
  refuse(flags.samples, "--samples");
  refuse(flags.jobs, "--jobs");
  refuse(flags.system, "--system");
  refuse(flags.dispatch, "--dispatch");
  refuse(flags.exchange, "--exchange");
  refuse(flags.flows, "--flows");
  refuse(flags.kernel, "--kernel");
  refuse(flags.placement, "--placement");
  refuse(flags.slots, "--slots");
  refuse(flags.chunks, "--chunks");
  refuse(flags.batches, "--batches");
  refuse(flags.shadow, "--shadow");
  refuse(flags.noise, "--noise");
  refuse(flags.correlation, "--correlation");
  refuse(flags.drift, "--drift");
  return links_and_ranks(flags);
}

std::pair<RoutingNoise, double> parse_noise(const std::string& text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) throw UsageError("--noise", "has no strength", "write e.g. gaussian:0.5");
  const auto find = [](std::string_view name) -> std::optional<RoutingNoise> {
    if (name == "gaussian") return RoutingNoise::gaussian;
    if (name == "uniform") return RoutingNoise::uniform;
    return std::nullopt;
  };
  return {known_word<RoutingNoise>(text.substr(0, colon), "--noise", find, {"gaussian", "uniform"}),
          parse_number(text.substr(colon + 1), "--noise", 0, 1e3)};
}

Cluster choose_cluster(const std::string& name, const std::string& device, const DataFolders& folders) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(folders.shipped) / "clusters";
  std::error_code ignored;
  if (!name.empty() && (name.ends_with(".json") || fs::is_regular_file(name, ignored))) return read_cluster(name);
  const std::vector<std::string> names = zoo_names(folder.string());
  if (!name.empty()) {
    if (std::ranges::find(names, name) != names.end()) return read_cluster((folder / (name + ".json")).string());
    const auto near = nearest_name(name, {names.begin(), names.end()});
    throw UsageError("--cluster", fmt::format("\"{}\" is not known", name),
                     near ? fmt::format("did you mean \"{}\"?", *near) : "moecast list clusters, or a file");
  }
  // Rails are how today's clusters are wired.
  std::optional<Cluster> first;
  for (const std::string& known : names) {
    Cluster cluster = read_cluster((folder / (known + ".json")).string());
    if (cluster.device != device) continue;
    if (cluster.scale_out.kind == FabricKind::rail_optimised) return cluster;
    if (!first) first = std::move(cluster);
  }
  if (first) return *first;
  throw UsageError("--cluster", fmt::format("is missing: no cluster of {} is known", device),
                   "moecast list clusters shows some; a file describes another (hwprofiles/cluster.schema.json)");
}

void require_devices(const Cluster& cluster, const Deployment& deployment) {
  const std::int64_t most = static_cast<std::int64_t>(cluster.most_nodes) * cluster.devices_per_node;
  const double asked = static_cast<double>(deployment.tp) * deployment.dp * deployment.cp * deployment.pp;
  if (asked <= static_cast<double>(most)) return;
  throw UsageError("--cluster", fmt::format("{} has {} devices, {:.0f} are asked for", cluster.name, most, asked),
                   "fewer ranks, or a larger cluster (moecast list clusters)");
}

void add_event_inputs(const EventFlags& flags, const EpOptions& options, std::vector<InputValue>& inputs) {
  const auto count = [&](const char* name, std::int64_t value, const std::string& typed) {
    inputs.push_back({name, value, !typed.empty()});
  };
  inputs.push_back({"engine", std::string("event"), true});
  count("samples", options.samples, flags.samples);
  inputs.push_back(
      {"exchange", std::string(options.exchange ? to_string(*options.exchange) : "usual"), !flags.exchange.empty()});
  inputs.push_back({"flows", flags.flows.empty() ? "port" : flags.flows, !flags.flows.empty()});
  const char* usual = options.placement.kind == PlacementKind::balanced ? "balanced" : "contiguous";
  inputs.push_back({"placement", flags.placement.empty() ? usual : flags.placement, !flags.placement.empty()});
  if (options.placement.kind == PlacementKind::balanced && !flags.placement.empty())
    count("slots_per_rank", options.slots_per_rank, flags.slots);
  count("chunks", options.chunks, flags.chunks);
  count("batches", options.batches, flags.batches);
  count("shadowed_experts", options.shadowed_experts, flags.shadow);
  inputs.push_back({"background_ratio", options.background_share, !flags.background.empty()});
  inputs.push_back({"correlation_ratio", options.orders.correlation, !flags.correlation.empty()});
  inputs.push_back({"drift_ratio", options.orders.drift, !flags.drift.empty()});
  inputs.push_back({"noise", flags.noise.empty() ? "none" : flags.noise, !flags.noise.empty()});
  add_slow_inputs({options.slow_ranks, options.slow_links, options.background_share}, inputs);
}

void add_event_inputs(const EventFlags& flags, const TrainingEventOptions& options, std::vector<InputValue>& inputs) {
  inputs.push_back({"engine", std::string("event"), true});
  inputs.push_back({"background_ratio", options.background_share, !flags.background.empty()});
  add_slow_inputs(options, inputs);
}

}  // namespace moecast
