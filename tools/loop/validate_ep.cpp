#include "tools/loop/validate_ep.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "models/core/statistics.h"
#include "models/routing/random.h"

namespace moecast {
namespace {

constexpr double kNinety = 1.645;
constexpr int kHeads = 8;
constexpr std::array<double, 4> kSkews{0, 0.5, 1, 1.5};
constexpr std::array<std::string_view, 3> kOrder{"all", "all_to_all_v", "moe_layer"};

MpiPoint exchange_point(MpiKind kind, double bytes) {
  MpiPoint point;
  point.kind = kind;
  point.bytes = bytes;
  return point;
}

/// Every rank of one half sends to all of the other half.
MpiPoint between_halves(int ranks, double bytes_per_rank) {
  ByteMatrix matrix(ranks);
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      if ((from < ranks / 2) != (to < ranks / 2)) matrix.at(from, to) = std::floor(bytes_per_rank * 2 / ranks);
    }
  }
  MpiPoint point;
  point.kind = MpiKind::all_to_all_v;
  point.matrix = std::move(matrix);
  return point;
}

/// What an exchange of a plan moves.
ByteMatrix bytes_of(const MpiPoint& point, int ranks) {
  if (point.matrix) return *point.matrix;
  if (point.kind == MpiKind::all_to_all) return ByteMatrix::uniform(ranks, point.bytes);
  ByteMatrix matrix(ranks);
  matrix.at(0, ranks - 1) = point.bytes;
  return matrix;
}

WorkProbe experts_work(const MpiLayer& layer, double rows, double touched) {
  const auto h = static_cast<double>(layer.hidden);
  const auto w = static_cast<double>(layer.width) / layer.tp;
  const double matrices = layer.gated ? 3 : 2;
  WorkProbe work;
  work.calls = touched;
  work.flops = 2 * matrices * rows * h * w;
  work.weight_bytes = 4 * matrices * touched * h * w;
  return work;
}

/// Gate, copies in the order of experts and back.
WorkProbe local_work(const MpiLayer& layer) {
  const auto h = static_cast<double>(layer.hidden);
  const auto tokens = static_cast<double>(layer.tokens);
  // Copies for the ranks that share an expert are written, and their shares read.
  const double shares = layer.tp > 1 ? 2 * layer.tp : 0;
  WorkProbe work;
  work.kind = HostWork::local;
  work.calls = 1;
  work.flops = 2 * tokens * h * layer.experts;
  work.weight_bytes = 4 * h * layer.experts;
  work.row_bytes = 4 * tokens * h * ((3 + shares) * layer.top_k + 1);
  return work;
}

/// Projections, and scores of every head.
WorkProbe attention_work(const MpiLayer& layer) {
  const auto h = static_cast<double>(layer.hidden);
  const auto tokens = static_cast<double>(layer.tokens);
  WorkProbe work;
  work.kind = HostWork::attention;
  work.calls = 1;
  work.flops = 8 * tokens * h * h;
  work.weight_bytes = 16 * h * h;
  work.row_bytes = 4 * tokens * tokens * h;  // a product a pair and column
  return work;
}

WorkProbe work_of(const MpiPoint& point) {
  if (point.kind == MpiKind::attention) return attention_work(point.layer);
  if (point.kind == MpiKind::local_work) return local_work(point.layer);
  return experts_work(point.layer, static_cast<double>(point.rows), static_cast<double>(point.touched));
}

MpiPoint work_point(MpiKind kind, const MpiLayer& layer, std::int64_t rows, std::int64_t touched, int at_once) {
  MpiPoint point;
  point.kind = kind;
  point.layer = layer;
  point.rows = rows;
  point.touched = touched;
  point.at_once = at_once;
  return point;
}

MpiLayer layer_of(int ranks, std::int64_t hidden, std::int64_t width, int per_rank) {
  MpiLayer layer;
  layer.tokens = 64;
  layer.hidden = hidden;
  layer.width = width;
  layer.experts = per_rank * ranks;
  layer.top_k = 2;
  return layer;
}

template <typename Value, std::size_t N>
Value pick(Random& random, const std::array<Value, N>& values) {
  return values[std::min(N - 1, static_cast<std::size_t>(random.uniform() * static_cast<double>(N)))];
}

/// Prediction of one case, with both baselines: everything spread evenly, and the nearest probe of the same kind by
/// bytes, scaled.
class Predictions {
 public:
  Predictions(const EpValidation& request, const HostRanks& law, const MpiPlan& probes, const MpiResults& measured)
      : request_(request), law_(law), events_(law, request.cluster, request.ranks) {
    for (std::size_t i = 0; i < probes.points.size(); ++i) {
      if (probes.points[i].kind != MpiKind::all_to_all) continue;
      even_.emplace_back(ByteMatrix::uniform(request.ranks, probes.points[i].bytes).total(),
                         median(measured.points[i].seconds));
    }
    const Topology topology(request.cluster, request.ranks, nullptr);
    port_ = topology.links().front().bandwidth;
  }

  Outcome predict(const MpiPoint& point) {
    Outcome outcome;
    double sigma = law_.exchange_sigma;
    if (point.matrix) {
      outcome.predicted_s = events_.exchange_s(*point.matrix);
      outcome.roofline_s = even_s(point.matrix->total());
      outcome.nearest_s = nearest_s(point.matrix->total());
    } else {
      const Assignment assignment = draw_mpi_routing(point.layer, request_.ranks);
      const MpiTraffic traffic = mpi_traffic(point.layer, request_.ranks, assignment);
      HostLayer layer;
      layer.dispatch = traffic.dispatch;
      layer.counts = mpi_count_bytes(point.layer, request_.ranks);
      const int local = point.layer.experts / (request_.ranks / point.layer.tp);
      double all_experts = 0;
      for (int rank = 0; rank < request_.ranks; ++rank) {
        const int group = rank / point.layer.tp;
        const auto first = traffic.rows_per_expert.begin() + static_cast<std::ptrdiff_t>(group * local);
        double rows = 0;
        double touched = 0;
        std::for_each(first, first + local, [&](double of) {
          rows += of;
          touched += of > 0 ? 1 : 0;
        });
        layer.experts_s.push_back(rows > 0 ? law_.work_s(experts_work(point.layer, rows, touched)) : 0);
        layer.local_s.push_back(law_.work_s(local_work(point.layer)) +
                                (point.layer.heads > 0 ? law_.work_s(attention_work(point.layer)) : 0));
        all_experts += layer.experts_s.back();
      }
      outcome.predicted_s = events_.layer_s(layer);
      const double exchanged = layer.dispatch.total();
      outcome.roofline_s = 2 * even_s(exchanged) + all_experts / request_.ranks;
      outcome.nearest_s = 2 * nearest_s(exchanged) + all_experts / request_.ranks;
      const double work = std::max(std::ranges::max(layer.experts_s), all_experts / law_.cores);
      const double share = std::min(1.0, work / outcome.predicted_s);
      sigma = std::hypot((1 - share) * law_.exchange_sigma, share * law_.work_sigma);
    }
    outcome.low_s = outcome.predicted_s * std::exp(-kNinety * sigma);
    outcome.high_s = outcome.predicted_s * std::exp(kNinety * sigma);
    return outcome;
  }

 private:
  [[nodiscard]] double even_s(double bytes) const { return bytes / request_.ranks / port_; }
  [[nodiscard]] double nearest_s(double bytes) const {
    const auto best = std::ranges::min_element(
        even_, {}, [&](const auto& probe) { return std::abs(std::log(probe.first / std::max(bytes, 1.0))); });
    return best->second * bytes / best->first;
  }

  const EpValidation& request_;
  HostRanks law_;
  HostRankEvents events_;
  std::vector<std::pair<double, double>> even_;  ///< bytes in all, seconds
  double port_ = 0;
};

/// Two halves of the repeats, every other one.
std::optional<double> rerun_ratio(const std::vector<double>& seconds) {
  std::array<std::vector<double>, 2> halves;
  for (std::size_t i = 0; i < seconds.size(); ++i) halves[i % 2].push_back(seconds[i]);
  if (halves[1].empty()) return std::nullopt;
  return std::abs(median(halves[0]) / median(halves[1]) - 1);
}

}  // namespace

MpiPlan ep_probes(const Cluster& cluster, int ranks, int repeats) {
  MpiPlan plan;
  plan.ranks = ranks;
  plan.repeats = repeats;
  for (const double bytes : {65536.0, 1048576.0}) {
    plan.points.push_back(exchange_point(MpiKind::point_to_point, bytes));
  }
  for (const double bytes : {65536.0, 524288.0, 4194304.0}) {
    plan.points.push_back(exchange_point(MpiKind::all_to_all, bytes));
  }
  if (cluster.scale_out.oversubscription > 1) {
    for (const double bytes : {262144.0, 2097152.0}) plan.points.push_back(between_halves(ranks, bytes));
  }
  struct Shape {
    std::int64_t hidden, width;
    int per_rank;
    std::int64_t rows, touched;
  };
  // One row an expert to hundreds, few experts and many, wide and narrow.
  constexpr std::array<Shape, 12> kShapes{{{256, 1024, 8, 512, 2},
                                           {1024, 512, 4, 256, 4},
                                           {512, 256, 4, 128, 4},
                                           {768, 768, 4, 24, 4},
                                           {256, 1024, 8, 16, 8},
                                           {1024, 512, 4, 4, 4},
                                           {768, 768, 4, 64, 1},
                                           {512, 256, 4, 8, 1},
                                           {512, 1024, 2, 200, 1},
                                           {1024, 256, 8, 96, 8},
                                           {384, 384, 8, 384, 8},
                                           {640, 512, 8, 40, 8}}};
  const auto experts = [&](const Shape& s, int at_once) {
    plan.points.push_back(
        work_point(MpiKind::experts, layer_of(ranks, s.hidden, s.width, s.per_rank), s.rows, s.touched, at_once));
  };
  for (const Shape& s : kShapes) experts(s, 1);
  for (std::size_t i = 0; i < 4; ++i) experts(kShapes[i], ranks);
  for (const auto& [tokens, hidden] : {std::pair{16, 512}, {512, 512}, {64, 1024}, {256, 256}}) {
    MpiLayer layer = layer_of(ranks, hidden, 256, 4);
    layer.tokens = tokens;
    plan.points.push_back(work_point(MpiKind::local_work, layer, 0, 0, 1));
  }
  for (const auto& [tokens, hidden] : {std::pair{8, 512}, {64, 256}, {64, 1024}, {256, 512}, {512, 384}}) {
    MpiLayer layer = layer_of(ranks, hidden, 256, 1);
    layer.tokens = tokens;
    layer.heads = kHeads;
    plan.points.push_back(work_point(MpiKind::attention, layer, 0, 0, 1));
  }
  return plan;
}

MpiPlan ep_cases(const EpValidation& request) {
  MpiPlan plan;
  plan.ranks = request.ranks;
  plan.repeats = request.repeats;
  Random random(request.seed);
  for (int i = 0; i < request.cases; ++i) {
    MpiLayer layer;
    layer.zipf = kSkews[static_cast<std::size_t>(i / 2) % kSkews.size()];
    layer.seed = request.seed * 1000 + static_cast<std::uint64_t>(i);
    layer.hidden = pick<std::int64_t>(random, std::array<std::int64_t, 4>{384, 512, 640, 896});
    layer.width = pick<std::int64_t>(random, std::array<std::int64_t, 4>{256, 384, 640, 1280});
    layer.experts = request.ranks * pick(random, std::array<int, 4>{1, 2, 4, 8});
    layer.top_k = std::min(layer.experts, pick(random, std::array<int, 4>{1, 2, 4, 8}));
    layer.gated = random.uniform() < 0.75;
    // 128 KiB to 4 MiB of a rank's copies.
    const double bytes = 131072 * std::pow(32.0, random.uniform());
    layer.tokens =
        std::max<std::int64_t>(1, std::llround(bytes / (4.0 * static_cast<double>(layer.hidden) * layer.top_k)));
    // Of four rounds of skews one attends, and one splits its experts over two ranks.
    const int round = i / (2 * static_cast<int>(kSkews.size())) % 4;
    if (round == 1) layer.heads = kHeads;
    if (round == 2 && request.ranks % 2 == 0) layer.tp = 2;
    MpiPoint point;
    point.layer = layer;
    if (i % 2 == 0) {
      point.kind = MpiKind::all_to_all_v;
      ByteMatrix matrix = mpi_traffic(layer, request.ranks, draw_mpi_routing(layer, request.ranks)).dispatch;
      // Dispatch and combine in turn.
      point.matrix = i % 4 == 0 ? std::move(matrix) : matrix.transposed();
    } else {
      point.kind = MpiKind::moe_layer;
    }
    plan.points.push_back(std::move(point));
  }
  return plan;
}

double ep_bar(const std::string& stratum) {
  if (stratum == "all_to_all_v") return 0.08;
  if (stratum == "moe_layer") return 0.10;
  return stratum.starts_with("all_to_all_v ") ? 0.15 : 0;
}

EpValidationReport validate_ep(const EpValidation& request) {
  const auto stage = [&](const std::string& name) {
    MpiLauncher launcher = request.launcher;
    if (request.progress) launcher.progress = [&request, name](double done) { request.progress(name, done); };
    return launcher;
  };
  EpValidationReport report;
  const MpiPlan probes = ep_probes(request.cluster, request.ranks, request.repeats);
  const MpiResults probed = run_mpi_plan(probes, stage("probing"));
  report.library = probed.library;
  report.probes = static_cast<int>(probes.points.size());
  std::vector<ExchangeProbe> exchanges;
  std::vector<WorkProbe> work;
  for (std::size_t i = 0; i < probes.points.size(); ++i) {
    const MpiPoint& point = probes.points[i];
    const double seconds = median(probed.points[i].seconds);
    if (point.kind == MpiKind::experts || point.kind == MpiKind::local_work || point.kind == MpiKind::attention) {
      work.push_back(work_of(point));
      work.back().at_once = point.at_once;
      work.back().seconds = seconds;
    } else {
      exchanges.push_back({bytes_of(point, request.ranks), seconds});
    }
  }
  report.law = fit_host_ranks(request.cluster, request.ranks, exchanges, work);
  const MpiPlan cases = ep_cases(request);
  Predictions predictions(request, report.law, probes, probed);
  std::vector<Outcome> outcomes;
  for (const MpiPoint& point : cases.points) outcomes.push_back(predictions.predict(point));
  const MpiResults executed = run_mpi_plan(cases, stage("executing"));
  Strata strata;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    Outcome& outcome = outcomes[i];
    outcome.measured_s = median(executed.points[i].seconds);
    outcome.rerun_ratio = rerun_ratio(executed.points[i].seconds);
    const std::string kind(to_string(cases.points[i].kind));
    strata.add("all", outcome);
    strata.add(kind, outcome);
    const MpiLayer& layer = cases.points[i].layer;
    strata.add(fmt::format("{} zipf {}", kind, layer.zipf), outcome);
    if (cases.points[i].kind == MpiKind::moe_layer) {
      strata.add(layer.tp > 1      ? "moe_layer experts over 2 ranks"
                 : layer.heads > 0 ? "moe_layer with attention"
                                   : "moe_layer experts alone",
                 outcome);
    }
    report.cases.push_back({cases.points[i], outcome, executed.points[i].phases});
  }
  report.strata = strata.summaries(kOrder);
  return report;
}

}  // namespace moecast
