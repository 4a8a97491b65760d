#include "sim/event/host_ranks.h"

#include <fmt/format.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "models/core/error.h"
#include "sim/event/engine.h"
#include "sim/fit/least_squares.h"

namespace moecast {
namespace {

/// A handful of probes says little of what a law errs elsewhere: they count beside so many that erred as these laws
/// did on networks and CPUs at hand.
constexpr double kPriorProbes = 8;
constexpr double kExchangePrior = 0.05;
constexpr double kWorkPrior = 0.12;

bool is_leaf(const ClusterLink& link) { return link.name.starts_with("leaf "); }

Topology with_efficiency(const Cluster& cluster, int ranks, const HostRanks& law) {
  Topology topology(cluster, ranks, nullptr);
  std::vector<std::pair<std::string, double>> factors;
  for (const ClusterLink& link : topology.links()) {
    factors.emplace_back(link.name, is_leaf(link) ? law.leaf_efficiency : law.port_efficiency);
  }
  for (const auto& [name, factor] : factors) topology.scale_link(name, factor);
  return topology;
}

/// What the fit needs of one exchange.
struct ExchangeTerms {
  double peers = 0;
  double port_bytes_per_s = 0;
  double port_s = 0;  ///< of the fullest port at full bandwidth
  double leaf_s = 0;
};

int peers_of(const ByteMatrix& bytes, int rank) {
  int sends = 0;
  int receives = 0;
  for (int peer = 0; peer < bytes.ranks(); ++peer) {
    if (peer == rank) continue;
    sends += bytes.at(rank, peer) > 0 ? 1 : 0;
    receives += bytes.at(peer, rank) > 0 ? 1 : 0;
  }
  return std::max(sends, receives);
}

int most_peers(const ByteMatrix& bytes) {
  int most = 0;
  for (int rank = 0; rank < bytes.ranks(); ++rank) most = std::max(most, peers_of(bytes, rank));
  return most;
}

ExchangeTerms terms_of(const Topology& topology, const ByteMatrix& bytes) {
  std::vector<double> loads(topology.links().size(), 0.0);
  std::vector<int> links;
  for (int from = 0; from < bytes.ranks(); ++from) {
    for (int to = 0; to < bytes.ranks(); ++to) {
      if (from == to) continue;
      links.clear();
      topology.route(from, to, links);
      for (const int link : links) loads[static_cast<std::size_t>(link)] += bytes.at(from, to);
    }
  }
  ExchangeTerms terms;
  terms.peers = most_peers(bytes);
  terms.port_bytes_per_s = topology.links().front().bandwidth;
  for (std::size_t i = 0; i < loads.size(); ++i) {
    double& most = is_leaf(topology.links()[i]) ? terms.leaf_s : terms.port_s;
    most = std::max(most, loads[i] / topology.links()[i].bandwidth);
  }
  return terms;
}

/// A message that fits into the burst still takes a little.
constexpr double kLeastPast = 0.02;

double past_burst_s(const HostRanks& law, const ExchangeTerms& terms) {
  return std::max(kLeastPast * terms.port_s, terms.port_s - law.burst_bytes / terms.port_bytes_per_s);
}

double exchange_time(const HostRanks& law, const ExchangeTerms& terms) {
  return law.start_s + law.message_s * terms.peers +
         std::max(past_burst_s(law, terms) / law.port_efficiency, terms.leaf_s / law.leaf_efficiency);
}

/// ln of start, message, burst and the efficiencies.
void take(HostRanks& law, const Eigen::VectorXd& x) {
  law.start_s = std::exp(x[0]);
  law.message_s = std::exp(x[1]);
  law.burst_bytes = std::exp(x[2]);
  law.port_efficiency = std::min(1.0, std::exp(x[3]));
  law.leaf_efficiency = std::min(1.0, std::exp(x[4]));
}

struct TimedTerms {
  ExchangeTerms terms;
  double seconds;
};

void fit_exchange(HostRanks& law, std::span<const TimedTerms> timed) {
  // A message over a network stack costs tens of microseconds, and headers take 5 % of small frames' bandwidth.
  // A burst is a few full frames, unless somebody shapes.
  Eigen::VectorXd prior(5), spread(5);
  prior << std::log(100e-6), std::log(50e-6), std::log(16384.0), std::log(0.95), std::log(0.95);
  spread << 1.5, 1.5, 1.5, 0.1, 0.1;
  LeastSquaresProblem problem;
  problem.residuals = [&](const Eigen::VectorXd& x) {
    HostRanks trial;
    take(trial, x);
    Eigen::VectorXd r(static_cast<Eigen::Index>(timed.size()));
    for (std::size_t i = 0; i < timed.size(); ++i) {
      r[static_cast<Eigen::Index>(i)] = std::log(exchange_time(trial, timed[i].terms) / timed[i].seconds);
    }
    return r;
  };
  problem.penalties = [&](const Eigen::VectorXd& x) -> Eigen::VectorXd {
    return 0.05 * (x - prior).cwiseQuotient(spread);
  };
  problem.soft_scale = 0.1;
  take(law, fit_least_squares(problem, prior));
}

/// Least squares of relative errors, no coefficient below zero.
void fit_work(WorkLaw& law, std::span<const WorkProbe> alone) {
  Eigen::MatrixXd x(static_cast<Eigen::Index>(alone.size()), 4);
  for (std::size_t i = 0; i < alone.size(); ++i) {
    const WorkProbe& w = alone[i];
    x.row(static_cast<Eigen::Index>(i)) = Eigen::RowVector4d(w.calls, w.flops, w.weight_bytes, w.row_bytes) / w.seconds;
  }
  Eigen::Vector4d scale = x.colwise().maxCoeff();
  for (double& s : scale) s = s > 0 ? s : 1;
  const Eigen::VectorXd c =
      fit_non_negative(x * scale.cwiseInverse().asDiagonal(), Eigen::VectorXd::Ones(x.rows())).cwiseQuotient(scale);
  law = {c[0], c[1], c[2], c[3]};
}

/// Spread of ln(measured / predicted) that is to be expected. @param errors  of the probes of the fit.
double expected_sigma(std::span<const double> errors, double prior) {
  double sum = kPriorProbes * prior * prior;
  for (const double e : errors) sum += e * e;
  return std::sqrt(sum / (kPriorProbes + static_cast<double>(errors.size())));
}

}  // namespace

double WorkLaw::seconds(const WorkProbe& work) const {
  return call_s * work.calls + flop_s * work.flops + weight_byte_s * work.weight_bytes + row_byte_s * work.row_bytes;
}

HostRanks fit_host_ranks(const Cluster& cluster, int ranks, std::span<const ExchangeProbe> exchanges,
                         std::span<const WorkProbe> work) {
  std::vector<WorkProbe> experts, local, attention;
  for (const WorkProbe& probe : work) {
    if (probe.at_once != 1) continue;
    (probe.kind == HostWork::experts ? experts : probe.kind == HostWork::local ? local : attention).push_back(probe);
  }
  const bool few_attention = !attention.empty() && attention.size() < 3;
  if (exchanges.size() < 3 || experts.size() < 3 || local.size() < 3 || few_attention) {
    throw InputError("probes",
                     fmt::format("{} exchanges, {} times of experts and {} of local work on one rank", exchanges.size(),
                                 experts.size(), local.size()),
                     "three of each at least");
  }
  const auto positive = [](const auto& probe) { return probe.seconds > 0 && std::isfinite(probe.seconds); };
  if (!std::ranges::all_of(exchanges, positive) || !std::ranges::all_of(work, positive)) {
    throw InputError("probes", "a time that is not above zero");
  }
  const Topology topology(cluster, ranks, nullptr);
  std::vector<TimedTerms> timed;
  for (const ExchangeProbe& probe : exchanges) timed.push_back({terms_of(topology, probe.bytes), probe.seconds});
  HostRanks law;
  fit_exchange(law, timed);
  fit_work(law.experts, experts);
  fit_work(law.local, local);
  if (!attention.empty()) fit_work(law.attention, attention);
  std::vector<double> errors;
  for (const TimedTerms& one : timed) errors.push_back(std::log(one.seconds / exchange_time(law, one.terms)));
  law.exchange_sigma = expected_sigma(errors, kExchangePrior);
  errors.clear();
  for (const WorkProbe& one : experts) {
    const double predicted = law.experts.seconds(one);
    errors.push_back(predicted > 0 ? std::log(one.seconds / predicted) : 1.0);
  }
  law.work_sigma = expected_sigma(errors, kWorkPrior);
  double cores = 0;
  int together = 0;
  for (const WorkProbe& probe : work) {
    if (probe.at_once == 1) continue;
    const auto same = std::ranges::find_if(work, [&](const WorkProbe& one) {
      return one.at_once == 1 && one.kind == probe.kind && one.flops == probe.flops && one.calls == probe.calls &&
             one.row_bytes == probe.row_bytes;
    });
    const double one = same == work.end() ? law.work_s(probe) : same->seconds;
    cores += std::log(std::clamp(one * probe.at_once / probe.seconds, 0.1, static_cast<double>(probe.at_once)));
    ++together;
  }
  law.cores = together == 0 ? ranks : std::exp(cores / together);
  return law;
}

HostRankEvents::HostRankEvents(const HostRanks& law, const Cluster& cluster, int ranks)
    : law_(law), topology_(with_efficiency(cluster, ranks, law)) {
  for (const ClusterLink& link : topology_.links()) graph_.add_resource(link.name, link.bandwidth);
  cores_ = graph_.add_resource("cores", law.cores);
}

int HostRankEvents::add_work(int rank, double seconds, std::span<const int> after) {
  const Demand demand{seconds, 1.0, std::span(&cores_, 1)};
  return graph_.add_task(TaskKind::kernel, rank, 0, 0,
                         seconds > 0 ? std::span<const Demand>(&demand, 1) : std::span<const Demand>(), after);
}

void HostRankEvents::add_exchange(TaskKind kind, const ByteMatrix& bytes, const std::vector<int>& ready,
                                  std::vector<std::vector<int>>& done) {
  const int ranks = bytes.ranks();
  done.assign(static_cast<std::size_t>(ranks), {});
  std::vector<int> links;
  std::vector<int> after;
  for (int from = 0; from < ranks; ++from) {
    after.clear();
    if (!ready.empty()) after.push_back(ready[static_cast<std::size_t>(from)]);
    const double start = law_.start_s + law_.message_s * peers_of(bytes, from);
    for (int to = 0; to < ranks; ++to) {
      if (from == to || bytes.at(from, to) == 0) continue;
      links.clear();
      topology_.route(from, to, links);
      const double port = std::max(bytes.egress(from), bytes.ingress(to));
      const double past = std::max(kLeastPast, 1 - law_.burst_bytes / port);
      const Demand demand{past * bytes.at(from, to), std::numeric_limits<double>::infinity(), links};
      const int task = graph_.add_task(kind, from, 1, start, std::span(&demand, 1), after);
      done[static_cast<std::size_t>(from)].push_back(task);
      done[static_cast<std::size_t>(to)].push_back(task);
    }
    if (!ready.empty()) done[static_cast<std::size_t>(from)].push_back(ready[static_cast<std::size_t>(from)]);
  }
  for (std::vector<int>& waits : done) std::ranges::sort(waits);
}

double HostRankEvents::exchange_s(const ByteMatrix& bytes) {
  graph_.clear_tasks();
  std::vector<std::vector<int>> done;
  add_exchange(TaskKind::dispatch, bytes, {}, done);
  return simulate(graph_).makespan_s;
}

double HostRankEvents::layer_s(const HostLayer& layer) {
  const auto ranks = static_cast<std::size_t>(topology_.ranks());
  graph_.clear_tasks();
  std::vector<int> routed;
  for (std::size_t r = 0; r < ranks; ++r) routed.push_back(add_work(static_cast<int>(r), layer.local_s[r], {}));
  std::vector<std::vector<int>> done;
  if (layer.counts) {
    // Nobody sends rows before it knows what will come.
    add_exchange(TaskKind::dispatch, *layer.counts, routed, done);
    for (std::size_t r = 0; r < ranks; ++r) routed[r] = add_work(static_cast<int>(r), 0, done[r]);
  }
  add_exchange(TaskKind::dispatch, layer.dispatch, routed, done);
  std::vector<int> computed;
  for (std::size_t r = 0; r < ranks; ++r) {
    computed.push_back(add_work(static_cast<int>(r), layer.experts_s[r], done[r]));
  }
  add_exchange(TaskKind::combine, layer.dispatch.transposed(), computed, done);
  return simulate(graph_).makespan_s;
}

}  // namespace moecast
