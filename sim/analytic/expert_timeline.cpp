#include "sim/analytic/expert_timeline.h"

#include <algorithm>
#include <numeric>

#include "models/core/error.h"
#include "models/plan/graph.h"
#include "models/plan/offload.h"
#include "models/routing/load.h"
#include "sim/analytic/offload_cost.h"

namespace moecast {
namespace {

/// Of the datasheet's bandwidth: what copies over links between GPUs and inside their memory usually reach.
constexpr double kUsualShare = 0.7;

std::vector<MoeBlock*> moe_blocks(Architecture& architecture) {
  std::vector<MoeBlock*> found;
  for (auto* stack : {&architecture.encoder, &architecture.decoder}) {
    for (Layer& layer : *stack) {
      for (Block& block : layer.blocks) {
        if (auto* moe = std::get_if<MoeBlock>(&block)) found.push_back(moe);
      }
    }
  }
  return found;
}

void check(const std::vector<MoeBlock*>& blocks, const std::string& name) {
  if (blocks.empty()) throw InputError("events", name + " has no experts", "leave --events out");
  const MoeBlock& first = *blocks.front();
  for (const MoeBlock* moe : blocks) {
    if (moe->experts.size() != 1 || moe->expert_count() != first.expert_count() ||
        moe->router.top_k != first.router.top_k) {
      throw InputError("events", "experts of " + name + " differ within or between layers",
                       "events are of models whose MoE layers are alike");
    }
  }
  if (first.router.kind != RouterKind::token_choice || first.router.coarse_experts > 0) {
    throw InputError("events", "the router of " + name + " is made for its number of experts",
                     "events are of models whose tokens choose among all experts");
  }
}

Architecture with_experts(const Architecture& architecture, int experts) {
  Architecture changed = architecture;
  for (MoeBlock* moe : moe_blocks(changed)) {
    if (moe->router.groups > 1 && experts % moe->router.groups != 0) {
      throw InputError("events", std::to_string(experts) + " experts do not divide over the " +
                                     std::to_string(moe->router.groups) + " groups of the router");
    }
    moe->experts.front().count = experts;
  }
  return changed;
}

/// Longest time of a rank to receive, and to send, what is its part; `unknown` where a bandwidth is missing.
std::optional<Seconds> transfer_time(const ExpertChange& change, int ranks, Bytes part, const TransitionCosts& costs,
                                     std::string& unknown) {
  std::vector<double> host(static_cast<std::size_t>(ranks), 0.0);
  std::vector<double> in = host;
  std::vector<double> out = host;
  std::vector<double> copied = host;
  for (const ExpertMove& move : change.moves) {
    const auto to = static_cast<std::size_t>(move.to);
    if (!move.from) {
      host[to] += part.value();
    } else if (*move.from == move.to) {
      copied[to] += 2 * part.value();  // read and written
    } else {
      in[to] += part.value();
      out[static_cast<std::size_t>(*move.from)] += part.value();
    }
  }
  const auto need = [&](const std::vector<double>& bytes, const std::optional<BytesPerSecond>& bandwidth,
                        const char* what) {
    const bool used = std::ranges::any_of(bytes, [](double b) { return b > 0; });
    if (used && !bandwidth && unknown.empty()) unknown = what;
  };
  need(host, costs.host, "the bandwidth between host and device: write --host-link RATE");
  need(in, costs.ranks, "the bandwidth between ranks: the profile says none");
  need(copied, costs.copy, "the bandwidth of copies: the profile says none");
  if (!unknown.empty()) return std::nullopt;
  const auto over = [](double bytes, const std::optional<BytesPerSecond>& bandwidth) {
    return bytes > 0 ? bytes / bandwidth->value() : 0.0;
  };
  double longest = 0;
  for (std::size_t r = 0; r < host.size(); ++r) {
    longest = std::max(
        longest, over(host[r], costs.host) + over(std::max(in[r], out[r]), costs.ranks) + over(copied[r], costs.copy));
  }
  return Seconds(longest);
}

}  // namespace

TransitionCosts transition_costs(const Profile& profile, std::optional<BytesPerSecond> given,
                                 std::optional<Seconds> recapture, int threads) {
  TransitionCosts costs;
  ExpertOffload offload;
  offload.link = given;
  if (const auto link = host_link(profile, offload)) costs.host = link->bandwidth;
  costs.replays_graphs = profile.device == "gpu";
  if (!costs.replays_graphs) {
    const HardwareQuantity* copy = profile.find("copy_bandwidth_" + std::to_string(threads) + "_threads");
    if (copy != nullptr) costs.copy = BytesPerSecond(copy->value);
    return costs;
  }
  costs.recapture = recapture;
  const auto usual = [&](const char* name) -> std::optional<BytesPerSecond> {
    const HardwareQuantity* known = profile.find(name);
    return known != nullptr ? std::optional(BytesPerSecond(kUsualShare * known->value)) : std::nullopt;
  };
  costs.ranks = usual("scaleup_bandwidth_per_direction");
  costs.copy = usual("memory_bandwidth");
  return costs;
}

std::vector<TimelineEntry> expert_timeline(const Predictor& predictor, const Architecture& architecture,
                                           const Deployment& deployment, const Workload& workload,
                                           const ExpertEvents& events, const TransitionCosts& costs, bool keep_load) {
  Architecture known = architecture;
  const std::vector<MoeBlock*> blocks = moe_blocks(known);
  check(blocks, architecture.name);
  const MoeBlock& moe = *blocks.front();
  const int ranks = deployment.ep;
  if (ranks < 1 || moe.expert_count() % ranks != 0) {
    throw InputError("ep",
                     std::to_string(ranks) + " ranks do not divide experts = " + std::to_string(moe.expert_count()),
                     "choose a degree that divides it");
  }
  ExpertSet set(expert_popularity(workload.load, moe.expert_count()), ranks, moe.router.top_k, events.most,
                events.pruned);
  const double layers = static_cast<double>(blocks.size());
  const Bytes part = expert_weight_bytes(moe, architecture, architecture.hidden, deployment);
  const int parts = expert_tensor_ranks(deployment);
  const double tokens = step_tokens(workload);
  std::vector<TimelineEntry> timeline;
  const auto add = [&](TimelineEntry entry) {
    entry.experts = set.experts();
    entry.places = set.places();
    const std::vector<double> rows = set.rows_per_rank(tokens);
    entry.fullest_rows = *std::ranges::max_element(rows);
    const double mean = std::accumulate(rows.begin(), rows.end(), 0.0) / ranks;
    entry.row_imbalance = mean > 0 ? entry.fullest_rows / mean : 1;
    Workload step = workload;
    if (!keep_load) {
      step.load.kind = LoadKind::histogram;
      step.load.histogram = set.popularity_of_places();
    }
    entry.steady = predictor.predict(with_experts(architecture, ranks * entry.places), deployment, step);
    timeline.push_back(std::move(entry));
  };
  add({});
  for (const ExpertEvent& event : events.events) {
    TimelineEntry entry;
    entry.event = event;
    entry.change = set.apply(event);
    entry.moved = part * (parts * layers * static_cast<double>(entry.change.moves.size()));
    entry.transfer = transfer_time(entry.change, ranks, part * layers, costs, entry.unknown);
    const bool captures = costs.replays_graphs && entry.change.places_changed;
    entry.recapture = captures ? costs.recapture : Seconds(0);
    if (!entry.recapture && entry.unknown.empty()) {
      entry.unknown = "how long graphs take to be captured again: write --recapture TIME";
    }
    if (entry.transfer && entry.recapture) entry.transition = *entry.transfer + *entry.recapture;
    add(std::move(entry));
  }
  return timeline;
}

}  // namespace moecast
