#include "sim/analytic/offload_cost.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/plan/graph.h"
#include "models/plan/token_classes.h"
#include "models/routing/expert_cache.h"

namespace moecast {
namespace {

/// Of the datasheet's bandwidth: reached by copies of megabytes from pinned memory, and its 90 % interval.
constexpr double kReached = 0.86;
constexpr double kReachedLow = 0.75;
constexpr double kReachedHigh = 0.95;
/// Layers of random popularity are as many different draws.
constexpr int kDraws = 32;

std::vector<double> touched_experts(const MoeBlock& moe, const Workload& w, std::uint64_t draw) {
  const auto experts = static_cast<std::size_t>(moe.expert_count());
  if (!w.rows_per_expert.empty()) {
    std::vector<double> touched(experts, 0.0);
    for (std::size_t e = 0; e < std::min(experts, w.rows_per_expert.size()); ++e) touched[e] = w.rows_per_expert[e] > 0;
    return touched;
  }
  if (moe.router.kind == RouterKind::soft || moe.router.kind == RouterKind::expert_choice) {
    return std::vector<double>(experts, 1.0);
  }
  Workload drawn = w;
  drawn.load.seed += draw;
  return mixed_touch_probability(moe, drawn, step_tokens(w) * std::max(1, moe.sub_token_heads));
}

bool is_random(LoadKind kind) {
  return kind == LoadKind::log_normal || kind == LoadKind::power_law || kind == LoadKind::dirichlet;
}

/// Mean over the draws of popularity.
CacheUse use_of(const OffloadedLayers& layers, const Deployment& d, const Workload& w) {
  const int draws = w.rows_per_expert.empty() && is_random(w.load.kind) ? kDraws : 1;
  CacheUse mean;
  for (int draw = 0; draw < draws; ++draw) {
    const std::vector<double> touched = touched_experts(layers.block, w, static_cast<std::uint64_t>(draw));
    std::vector<CacheUse> ranks;
    for (int rank = 0; rank < d.ep; ++rank) {
      ranks.push_back(cache_use(std::span(touched).subspan(static_cast<std::size_t>(rank) * layers.experts,
                                                           static_cast<std::size_t>(layers.experts)),
                                layers.resident, d.offload->policy));
    }
    const CacheUse use = slowest_cache(ranks);
    mean.touched += use.touched / draws;
    mean.missed += use.missed / draws;
    mean.missed_distribution.resize(std::max(mean.missed_distribution.size(), use.missed_distribution.size()), 0.0);
    for (std::size_t m = 0; m < use.missed_distribution.size(); ++m) {
      mean.missed_distribution[m] += use.missed_distribution[m] / draws;
    }
  }
  return mean;
}

double mean_missed(const CacheUse& use) {
  double mean = 0;
  for (std::size_t m = 0; m < use.missed_distribution.size(); ++m) {
    mean += static_cast<double>(m) * use.missed_distribution[m];
  }
  return mean;
}

/// Mean time beyond `hidden_s` of a layer that fetches m experts of `each_s`.
double exposed(const CacheUse& use, double each_s, double hidden_s) {
  double mean = 0;
  for (std::size_t m = 0; m < use.missed_distribution.size(); ++m) {
    mean += use.missed_distribution[m] * std::max(0.0, static_cast<double>(m) * each_s - hidden_s);
  }
  return mean;
}

struct Fetching {
  OffloadedLayers layers;
  CacheUse use;
};

double exposed_of_step(const std::vector<Fetching>& all, BytesPerSecond bandwidth, double hidden_s) {
  double sum = 0;
  for (const Fetching& f : all) {
    sum += f.layers.layers * exposed(f.use, kFetchStart + (f.layers.expert / bandwidth).value(), hidden_s);
  }
  return sum;
}

/// Lengthens the answer and its interval. @param slow, fast  ends of the link's interval.
void add_time(Prediction& prediction, const Workload& workload, double seconds, double slow, double fast) {
  const double tokens = step_tokens(workload);
  prediction.latency = *prediction.latency + Seconds(seconds);
  if (prediction.low) prediction.low = *prediction.low + Seconds(fast);
  if (prediction.high) prediction.high = *prediction.high + Seconds(slow);
  prediction.throughput_tokens_per_s = tokens / prediction.latency->value();
  Factors& factors = prediction.factors;
  factors.memory_bandwidth += Seconds(seconds);
  const double rest = std::max({factors.all_to_all.value(), factors.compute.value(), factors.routing_overhead.value(),
                                factors.memory_bandwidth.value() - seconds});
  if (seconds > rest) prediction.bottleneck = "host_link";
}

}  // namespace

std::optional<HostLink> host_link(const Profile& profile, const ExpertOffload& offload) {
  if (offload.link) return HostLink{*offload.link, *offload.link, *offload.link, Origin::assumed};
  const HardwareQuantity* known = profile.find(kHostBandwidth);
  if (known == nullptr) return std::nullopt;
  if (known->origin == Origin::datasheet) {
    return HostLink{BytesPerSecond(kReached * known->value), BytesPerSecond(kReachedLow * known->value),
                    BytesPerSecond(kReachedHigh * known->value), Origin::datasheet};
  }
  return HostLink{BytesPerSecond(known->value), BytesPerSecond(known->low.value_or(known->value)),
                  BytesPerSecond(known->high.value_or(known->value)), known->origin};
}

void require_link(Prediction& prediction) {
  prediction.status = Status::outside_range;
  prediction.reason =
      "experts are fetched, but the profile does not say how fast the link to the host is: write --host-link RATE";
  prediction.latency = prediction.low = prediction.high = std::nullopt;
  prediction.throughput_tokens_per_s = std::nullopt;
}

bool fetches_experts(const Architecture& architecture, const Deployment& deployment, const Workload& workload) {
  return std::ranges::any_of(offloaded_layers(architecture, deployment, workload),
                             [](const OffloadedLayers& layers) { return layers.runs; });
}

void charge_offload(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                    const std::optional<HostLink>& link, const Without& without, Prediction& prediction) {
  if (!deployment.offload) return;
  const std::vector<OffloadedLayers> offloaded = offloaded_layers(architecture, deployment, workload);
  OffloadUse& use = prediction.offload.emplace();
  use.policy = deployment.offload->policy;
  use.overlap = deployment.offload->overlap;
  use.resident = *deployment.offload->resident;
  use.experts = use.resident;
  use.host = offloaded_bytes(offloaded);
  if (link) {
    use.link = link->bandwidth;
    use.link_origin = link->origin;
  }
  if (offloaded.empty()) return;
  std::vector<Fetching> fetching;
  double touched = 0;
  double missed = 0;
  double layers = 0;
  for (const OffloadedLayers& l : offloaded) {
    if (!l.runs) continue;
    fetching.push_back({l, use_of(l, deployment, workload)});
    const CacheUse& cache = fetching.back().use;
    const double slowest = mean_missed(cache);
    touched += l.layers * cache.touched;
    missed += l.layers * cache.missed;
    layers += l.layers;
    use.missed += l.layers * slowest;
    use.fetched += l.expert * (l.layers * slowest);
  }
  use.experts = offloaded.front().experts;
  use.resident = offloaded.front().resident;
  use.expert = offloaded.front().expert;
  if (layers > 0) use.missed /= layers;
  if (touched > 0) use.hit_ratio = 1 - missed / touched;
  if (!prediction.latency || fetching.empty()) return;
  if (!link) {
    require_link(prediction);
    return;
  }
  use.transfer = Seconds(exposed_of_step(fetching, link->bandwidth, 0));
  const std::size_t stack = architecture.decoder.empty() ? architecture.encoder.size() : architecture.decoder.size();
  const double hidden =
      use.overlap == FetchOverlap::layer ? prediction.latency->value() * deployment.pp / static_cast<double>(stack) : 0;
  use.exposed = Seconds(exposed_of_step(fetching, link->bandwidth, hidden));
  if (without.memory_bandwidth) return;
  add_time(prediction, workload, use.exposed.value(), exposed_of_step(fetching, link->low, hidden),
           exposed_of_step(fetching, link->high, hidden));
  prediction.operators.push_back(
      {"weight_transfer", "experts that are fetched", "offload", layers, use.exposed, use.link_origin});
  prediction.origin = weakest(prediction.origin, use.link_origin);
  prediction.warnings.emplace_back(
      "hit rate of experts: steps are taken to choose independently of each other; text that stays with its experts "
      "hits more often");
}

}  // namespace moecast
