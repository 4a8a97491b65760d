#include "tools/cli/routing_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"
#include "models/routing/inclusion.h"
#include "models/routing/routing_trace.h"
#include "tools/cli/command.h"
#include "tools/cli/event_options.h"
#include "tools/cli/placement_option.h"
#include "tools/cli/query_numbers.h"
#include "tools/cli/query_options.h"

namespace moecast {
namespace {

/// Enough that means of rows are known to a percent.
constexpr int kUsualSamples = 100;

template <typename Value>
Value one_of(const std::string& text, const char* flag, const std::vector<std::pair<std::string_view, Value>>& words) {
  std::vector<std::string_view> names;
  for (const auto& [name, value] : words) {
    if (name == text) return value;
    names.push_back(name);
  }
  const auto near = nearest_name(text, names);
  throw UsageError(
      flag, fmt::format("\"{}\" is not known", text),
      near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("write one of: {}", fmt::join(names, ", ")));
}

std::int64_t needed(const std::string& text, const char* flag, std::int64_t high) {
  if (text.empty()) throw UsageError(flag, "is missing", "e.g. --experts 64 --top-k 4 --tokens 1024 --ranks 8");
  return parse_count(text, flag, 1, high);
}

RoutingPolicy policy_of(const RoutingOptions& options, int experts) {
  RoutingPolicy policy;
  using Kind = RoutingPolicyKind;
  if (!options.policy.empty()) {
    policy.kind = one_of<Kind>(options.policy, "--policy",
                               {{"token-choice", Kind::token_choice},
                                {"expert-choice", Kind::expert_choice},
                                {"hash", Kind::hash},
                                {"hierarchical", Kind::hierarchical},
                                {"dense", Kind::dense}});
  }
  policy.top_k = policy.kind == Kind::dense && options.top_k.empty()
                     ? experts
                     : static_cast<int>(needed(options.top_k, "--top-k", experts));
  policy.groups = static_cast<int>(parse_count(options.groups, "--groups", 1, experts));
  policy.groups_kept = options.groups_kept.empty()
                           ? policy.groups
                           : static_cast<int>(parse_count(options.groups_kept, "--groups-kept", 1, policy.groups));
  if (policy.kind == Kind::hierarchical && options.groups_kept.empty()) policy.groups_kept = 1;
  policy.tokens_per_decision = static_cast<int>(parse_count(options.unit, "--unit", 1, kMaxSize));
  if (!options.noise.empty()) std::tie(policy.noise, policy.noise_strength) = parse_noise(options.noise);
  if (!options.top_k_distribution.empty()) {
    for (const std::string& chance : split_list(options.top_k_distribution, "--top-k-distribution")) {
      policy.top_k_distribution.push_back(parse_number(chance, "--top-k-distribution", 0));
    }
    const double sum = std::accumulate(policy.top_k_distribution.begin(), policy.top_k_distribution.end(), 0.0);
    if (std::abs(sum - 1) > 1e-6) {
      throw UsageError("--top-k-distribution", fmt::format("adds up to {}", sum), "chances add up to 1");
    }
  }
  return policy;
}

CapacitySpec capacity_of(const RoutingOptions& options) {
  CapacitySpec capacity;
  if (options.capacity_factor.empty() && options.schedule.empty()) {
    if (options.pad) throw UsageError("--pad", "means nothing without a capacity", "write --capacity-factor F");
    if (!options.overflow.empty()) {
      throw UsageError("--overflow", "means nothing without a capacity", "write --capacity-factor F");
    }
    return capacity;
  }
  if (!options.capacity_factor.empty()) {
    capacity.eval_factor = parse_number(options.capacity_factor, "--capacity-factor", 1e-6, 1e6);
  }
  capacity.pad = options.pad;
  capacity.factor_of_top_k = one_of<bool>(options.capacity_of, "--capacity-of", {{"top-k", true}, {"tokens", false}});
  capacity.rounding = one_of<CapacityRounding>(options.rounding, "--rounding",
                                               {{"ceil", CapacityRounding::ceil}, {"floor", CapacityRounding::floor}});
  if (!options.overflow.empty()) {
    capacity.overflow =
        one_of<Overflow>(options.overflow, "--overflow",
                         {{"drop", Overflow::drop}, {"next-best", Overflow::next_best}, {"queue", Overflow::queue}});
  }
  return capacity;
}

int slots_of(const RoutingOptions& options, int experts, int ranks) {
  return options.slots.empty() ? (experts + ranks - 1) / ranks + 1
                               : static_cast<int>(parse_count(options.slots, "--slots", 1, 65'536));
}

void place(const RoutingOptions& options, int ranks, RoutingRequest& request) {
  const int experts = static_cast<int>(request.question.popularity.size());
  request.placement = options.placement.empty() ? "contiguous" : options.placement;
  PlacementSpec spec = parse_placement(request.placement, ranks, true);
  if (!options.slots.empty() && spec.kind != PlacementKind::balanced && options.rebalance.empty()) {
    throw UsageError("--slots", "means nothing without replicas", "write --placement balanced, or --rebalance N");
  }
  RoutingQuestion& question = request.question;
  spec.ranks_per_node = question.ranks_per_node;
  const std::vector<double> rows = question.policy.kind == RoutingPolicyKind::token_choice
                                       ? inclusion_probability(question.popularity, question.policy.top_k)
                                       : question.popularity;
  question.placement = place_experts(spec, rows, question.policy.groups, ranks, slots_of(options, experts, ranks));
  if (spec.kind != PlacementKind::balanced) return;
  request.before = experts % ranks == 0 ? contiguous_placement(experts, ranks) : round_robin_placement(experts, ranks);
}

/// Experts of a recorded routing keep their numbers.
void take_load(const RoutingOptions& options, int experts, RoutingRequest& request) {
  const RoutingTrace* trace = request.load.trace.get();
  if (trace == nullptr) {
    if (!options.trace_layer.empty()) throw UsageError("--trace-layer", "is of a recorded load", "--load trace:FILE");
    request.question.popularity = expert_popularity(request.load, experts);
    return;
  }
  std::optional<std::size_t> layer;
  if (!options.trace_layer.empty()) {
    const auto number = parse_count(options.trace_layer, "--trace-layer", 0, 65'535);
    const auto found = std::ranges::find(trace->layers, static_cast<int>(number));
    if (found == trace->layers.end()) {
      throw UsageError("--trace-layer", fmt::format("{}: the trace has no such layer", number),
                       fmt::format("it has layers {} to {}", trace->layers.front(), trace->layers.back()));
    }
    layer = static_cast<std::size_t>(found - trace->layers.begin());
  } else if (trace->layers.size() > 1) {
    request.notes.push_back(fmt::format("{}: each expert's mean over {} layers (--trace-layer N: of one)", trace->path,
                                        trace->layers.size()));
  }
  std::vector<double>& popularity = request.question.popularity;
  popularity = recorded_popularity(*trace, experts, layer);
  const double sum = std::accumulate(popularity.begin(), popularity.end(), 0.0);
  for (double& weight : popularity) weight /= sum;
  request.notes.push_back(
      fmt::format("{}: how often each expert was chosen; which ones a token chose together, and on which rank, is not "
                  "kept (predict --engine event replays tokens)",
                  trace->path));
}

std::vector<CapacityStage> parse_schedule(const std::string& text) {
  std::vector<CapacityStage> stages;
  if (text.empty()) return stages;
  for (const std::string& stage : split_list(text, "--capacity-schedule")) {
    const std::size_t cross = stage.find('x');
    const std::int64_t steps =
        cross == std::string::npos ? 1 : parse_count(stage.substr(cross + 1), "--capacity-schedule", 1, 1'000'000'000);
    stages.push_back({steps, parse_number(stage.substr(0, cross), "--capacity-schedule", 1e-6, 1e6)});
  }
  return stages;
}

}  // namespace

void add_routing_options(const Command& command, RoutingOptions& o) {
  const auto group = [&](const char* title) {
    return [&command, title](const char* name, std::string& value, const char* type, const char* help) {
      command.add_option(name, value, help).type_name(type).group(title).not_empty();
    };
  };
  const auto layer = group("Layer");
  layer("--experts", o.experts, "N", "Experts of the layer, 1 to 65536");
  layer("--top-k", o.top_k, "N", "Experts a token uses, 1 to --experts");
  layer("--tokens", o.tokens, "N", "Tokens of a step on all ranks together");
  layer("--hidden", o.hidden, "N", "Width of a token: bytes are then known");
  layer("--width", o.width, "N", "Intermediate width of an expert: FLOPs and weights are then known");
  layer("--dtype", o.dtype, "NAME", "Format of the weights (default bf16)");
  command.add_flag("--no-gated", o.no_gated, "Experts have two matrices, not three").group("Layer");
  const auto routing = group("Routing");
  routing(
      "--load", o.load, "LOAD",
      "uniform (default), zipf:1.0, power-law:1.2 (weights drawn from the density x^-1.2 on 1 to 100: the larger the "
      "exponent, the fewer are above 1), dirichlet:0.5, log-normal:1.05, histogram:3,1,1, trace:FILE");
  routing("--trace-layer", o.trace_layer, "N", "Layer of trace:FILE, as it numbers them (default: mean over all)");
  routing("--policy", o.policy, "NAME", "token-choice (default), expert-choice, hash, hierarchical, dense");
  routing("--groups", o.groups, "N", "Equal groups of consecutive experts (default 1)");
  routing("--groups-kept", o.groups_kept, "N",
          "Groups a token may use (default all; hierarchical: coarse experts it chooses, default 1)");
  routing("--noise", o.noise, "KIND:STRENGTH", "gaussian:SD or uniform:RANGE, added to ln(popularity)");
  routing("--top-k-distribution", o.top_k_distribution, "P,P,...", "Chances of 0, 1, 2, ... experts a token");
  routing("--unit", o.unit, "N", "Tokens of a segment or sequence that is routed as one (default 1)");
  routing("--samples", o.samples, "N", "Sampled routings; 0: expectation (default: 0 where there is a closed form)");
  routing("--seed", o.seed, "N", "Seed of the load and of the samples (default 1)");
  const auto capacity = group("Capacity");
  capacity("--capacity-factor", o.capacity_factor, "F", "Slots of an expert = F T k / E (default: none)");
  capacity("--capacity-of", o.capacity_of, "WHAT", "top-k (default: F T k / E), tokens (F T / E)");
  capacity("--rounding", o.rounding, "RULE", "ceil (default), floor");
  capacity("--overflow", o.overflow, "NAME", "drop (default), next-best, queue (for the next step)");
  capacity("--queue-rows", o.queue_rows, "N", "Rows that wait at an expert at most (default: all)");
  capacity("--row-block", o.row_block, "N",
           "A rank computes whole blocks of an expert's rows (MegaBlocks: 128; default 1)");
  command.add_flag("--pad", o.pad, "Compute empty slots too").group("Capacity");
  const auto ranks = group("Ranks");
  ranks("--ranks", o.ranks, "N", "Expert-parallel ranks (default 1)");
  ranks("--ranks-per-node", o.ranks_per_node, "N", "Ranks of a node (default 8)");
  ranks(
      "--placement", o.placement, "NAME",
      "contiguous (default), round-robin, node-aware (groups on nodes), balanced (replicas by load), servers:N (all on "
      "the first N ranks), map:0,0,1+2 (ranks of each expert)");
  ranks("--slots", o.slots, "N", "Experts a rank holds when balanced (default: one more than its share)");
  ranks("--deduplicate", o.deduplicate, "BY", "Copies of a token: one a rank (default), node or expert");
  ranks("--dispatch-dtype", o.dispatch_dtype, "NAME", "Format of tokens on the way out (default bf16)");
  ranks("--combine-dtype", o.combine_dtype, "NAME", "Format on the way back (default bf16)");
  ranks("--link", o.link, "RATE", "Bandwidth of a rank's link, one direction, e.g. 50GB/s: moves of experts take time");
  const auto steps = group("Steps with feedback");
  steps("--steps", o.steps, "N", "Simulate so many steps, 1 to 1000000");
  steps("--capacity-schedule", o.schedule, "FxSTEPS,...", "Capacity factor of stages, e.g. 2x100,1.5x200,1.25");
  steps("--bias-step", o.bias_step, "U", "Learn a bias of the gate: bias += U sign(mean - load), in ln(popularity)");
  steps("--rebalance", o.rebalance, "STEPS", "Place experts anew after so many steps, where that helps");
  steps("--drift", o.drift, "RATIO", "Change of the experts' ranks from step to step, 0 (default) to 1");
  const auto trace = group("Write a trace");
  trace("--write-trace", o.trace, "FILE",
        "Sampled routing of --steps steps as CSV (.gz too), as --load trace:FILE reads it");
  trace("--layers", o.layers, "N", "MoE layers of the trace (default 1)");
  trace("--correlation", o.correlation, "RATIO", "Of popularity ranks in neighbouring layers, 0 (default) to 1");
  const auto output = group("Output");
  output("--show", o.show, "WHAT", "summary (default), experts, ranks, matrix, placement, steps: which table");
  output("--format", o.format, "FORMAT", "table (default), md, csv, json (everything), jsonl");
}

RoutingRequest routing_request(const RoutingOptions& options) {
  RoutingRequest request;
  RoutingQuestion& question = request.question;
  const int experts = static_cast<int>(needed(options.experts, "--experts", 65'536));
  const int ranks = static_cast<int>(parse_count(options.ranks, "--ranks", 1, 4096));
  question.tokens = needed(options.tokens, "--tokens", kMaxSize);
  question.seed = static_cast<std::uint64_t>(parse_count(options.seed, "--seed"));
  question.ranks_per_node = static_cast<int>(parse_count(options.ranks_per_node, "--ranks-per-node", 1, 4096));
  question.policy = policy_of(options, experts);
  question.capacity = capacity_of(options);
  question.row_block = parse_count(options.row_block, "--row-block", 1, 1 << 20);
  request.load = parse_load(options.load.empty() ? "uniform" : options.load, question.seed);
  take_load(options, experts, request);
  place(options, ranks, request);
  if (!options.deduplicate.empty()) {
    question.deduplication = one_of<Deduplication>(
        options.deduplicate, "--deduplicate",
        {{"expert", Deduplication::per_expert}, {"rank", Deduplication::per_rank}, {"node", Deduplication::per_node}});
  }
  const bool closed = has_expected_routing(question);
  request.samples_assumed = options.samples.empty() && !closed;
  question.samples = options.samples.empty()
                         ? (closed ? 0 : kUsualSamples)
                         : static_cast<int>(parse_count(options.samples, "--samples", 0, 1'000'000));
  if (question.samples == 0 && !closed) {
    throw UsageError("--samples", "0: this policy or capacity has no closed form", "write --samples 100");
  }
  const auto dtype = [](const std::string& text) { return text.empty() ? DType::bf16 : parse_dtype_flag(text); };
  if (!options.hidden.empty()) {
    const std::int64_t hidden = parse_count(options.hidden, "--hidden", 1, kMaxSize);
    request.dispatch_row_bytes = activation_row_bytes(hidden, dtype(options.dispatch_dtype));
    request.combine_row_bytes = activation_row_bytes(hidden, dtype(options.combine_dtype));
    if (!options.width.empty()) {
      const double weights = (options.no_gated ? 2.0 : 3.0) * static_cast<double>(hidden) *
                             static_cast<double>(parse_count(options.width, "--width", 1, kMaxSize));
      question.flops_per_row = 2 * weights;
      request.expert_bytes = weights * bytes_per_weight(dtype(options.dtype));
    }
  } else if (!options.width.empty() || !options.dispatch_dtype.empty() || !options.combine_dtype.empty()) {
    throw UsageError("--hidden", "is missing: without it nothing has bytes", "write e.g. --hidden 4096");
  }
  if (!options.link.empty()) request.link = parse_bytes_per_second(options.link, "--link").value();
  return request;
}

std::optional<StepsRequest> steps_request(const RoutingOptions& options, const RoutingRequest& request) {
  const bool feedback = !options.schedule.empty() || !options.bias_step.empty() || !options.rebalance.empty() ||
                        !options.drift.empty() || !options.queue_rows.empty();
  if (options.steps.empty()) {
    if (feedback) throw UsageError("--steps", "is missing: feedback works from step to step", "write e.g. --steps 100");
    return std::nullopt;
  }
  if (request.question.row_block > 1) {
    throw UsageError("--row-block", "is of one step", "leave out --steps, or the blocks");
  }
  StepsRequest asked;
  asked.steps = parse_count(options.steps, "--steps", 1, 1'000'000);
  asked.policy.capacity = request.question.capacity;
  asked.policy.schedule = parse_schedule(options.schedule);
  if (!options.queue_rows.empty()) {
    asked.policy.queue_rows = parse_count(options.queue_rows, "--queue-rows", 0, 1'000'000'000);
  }
  if (!options.bias_step.empty()) asked.policy.bias_step = parse_number(options.bias_step, "--bias-step", 0, 100);
  if (!options.rebalance.empty()) {
    asked.policy.rebalance_every = parse_count(options.rebalance, "--rebalance", 1, 1'000'000);
    asked.policy.slots_per_rank =
        slots_of(options, request.question.placement.experts(), request.question.placement.ranks());
  }
  asked.scenario.popularity = request.question.popularity;
  asked.scenario.routing = request.question.policy;
  asked.scenario.tokens = request.question.tokens;
  asked.scenario.placement = request.question.placement;
  if (!options.drift.empty()) asked.scenario.drift = parse_number(options.drift, "--drift", 0, 1);
  asked.scenario.sampled = request.question.samples > 0;
  asked.scenario.seed = request.question.seed;
  asked.scenario.expert_bytes = request.expert_bytes;
  asked.scenario.bytes_per_s = request.link;
  return asked;
}

}  // namespace moecast
