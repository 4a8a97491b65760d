#include "sim/cost/kernel/left_out_scores.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "models/core/statistics.h"
#include "sim/cost/kernel/kernel_fit.h"
#include "sim/cost/kernel/level_stretch.h"

namespace moecast {
namespace {

constexpr double kScoreCoverage = 0.9;
/// Score of a kernel of which a single shape was measured: physics alone is off by this, left out, at p90.
constexpr double kUnknownScore = 0.6;
/// Least score of a kernel of which two or three shapes were measured.
constexpr double kFewShapesScore = 0.35;
constexpr double kLeastUsual = 1e-6;
/// Groups from which on intervals are stretched to their coverage, from which on they may also shrink, and by how much
/// at most.
constexpr int kLeastStretched = 5;
constexpr int kLeastShrunk = 8;
constexpr double kMostStretch = 1.6;
/// Share of the shapes whose own quantile an interval holds: higher where few shapes say little of the next one.
constexpr double shape_quantile(std::size_t shapes) { return shapes >= 8 ? 0.78 : 0.85; }

int count_groups(const std::vector<LeftOutScore>& rows) {
  int most = -1;
  for (const LeftOutScore& row : rows) most = std::max(most, row.group);
  return most + 1;
}

}  // namespace

std::vector<LeftOutScore> left_out_scores(const KernelData& data, const LeftOutRows& rows,
                                          const std::vector<int>& row_groups) {
  const int groups = row_groups.empty() ? 0 : *std::ranges::max_element(row_groups) + 1;
  // The largest machine of every group, and of all others.
  std::vector<double> own(static_cast<std::size_t>(groups), 0), seen = own;
  for (std::size_t row = 0; row < data.rows(); ++row) {
    double& most = own[static_cast<std::size_t>(row_groups[row])];
    most = std::max(most, data.machine(static_cast<Eigen::Index>(row)));
  }
  for (std::size_t group = 0; group < own.size(); ++group) {
    for (std::size_t other = 0; other < own.size(); ++other) {
      if (other != group) seen[group] = std::max(seen[group], own[other]);
    }
  }
  std::vector<LeftOutScore> scores;
  scores.reserve(data.rows());
  for (std::size_t row = 0; row < data.rows(); ++row) {
    const auto r = static_cast<Eigen::Index>(row);
    const double largest = seen[static_cast<std::size_t>(row_groups[row])];
    LeftOutScore score{data.log_seconds(r), rows.log_predicted(r), rows.sigma(r), data.strata[row], row_groups[row]};
    if (largest > 0) score.growth = machine_growth(data.machine(r), largest, data.growth_half_width(r));
    scores.push_back(score);
  }
  return scores;
}

ScoreInterval score_interval(const std::vector<LeftOutScore>& rows, int skip) {
  const auto count = static_cast<std::size_t>(count_groups(rows));
  std::array<std::vector<double>, kKernelBands> pooled;
  std::array<std::vector<std::vector<double>>, kKernelBands> by_group;
  for (auto& groups : by_group) groups.resize(count);
  for (const LeftOutScore& row : rows) {
    if (row.group == skip) continue;
    pooled[row.stratum.band].push_back(row.score());
    by_group[row.stratum.band][static_cast<std::size_t>(row.group)].push_back(row.score());
  }
  ScoreInterval interval;
  for (std::size_t band = 0; band < kKernelBands; ++band) {
    interval.low[band] = -kUnknownScore;
    interval.high[band] = kUnknownScore;
    if (pooled[band].empty()) continue;
    constexpr double kTail = (1 - kScoreCoverage) / 2;
    std::vector<double> lows, highs;
    for (const std::vector<double>& scores : by_group[band]) {
      if (scores.empty()) continue;
      lows.push_back(quantile(scores, kTail));
      highs.push_back(quantile(scores, 1 - kTail));
    }
    interval.low[band] =
        std::min({quantile(pooled[band], kTail), quantile(lows, 1 - shape_quantile(lows.size())), -1e-3});
    interval.high[band] =
        std::max({quantile(pooled[band], 1 - kTail), quantile(highs, shape_quantile(highs.size())), 1e-3});
  }
  return interval;
}

Caution caution_for(int groups) {
  return {groups >= 5 ? 1 : groups == 4 ? 1.4 : groups == 3 ? 1.8 : 3, groups < 4 ? kFewShapesScore : 0};
}

namespace {

ScoreInterval cautious_interval(const std::vector<LeftOutScore>& rows, int skip, const Caution& caution) {
  std::vector<LeftOutScore> both;
  if (caution.symmetric) {
    both = rows;
    both.reserve(2 * rows.size());
    for (LeftOutScore row : rows) {
      row.log_measured = 2 * row.log_predicted - row.log_measured;
      both.push_back(row);
    }
  }
  ScoreInterval interval = score_interval(caution.symmetric ? both : rows, skip);
  for (double& score : interval.low) score = std::min(score * caution.factor, -caution.least);
  for (double& score : interval.high) score = std::max(score * caution.factor, caution.least);
  return interval;
}

/// How many times its bound a row's score is.
double times_bound(const LeftOutScore& row, const ScoreInterval& interval) {
  const double score = row.score();
  return score / (score > 0 ? interval.high_of(row.stratum) : interval.low_of(row.stratum));
}

}  // namespace

LeftOutIntervals left_out_intervals(const std::vector<LeftOutScore>& rows, const Caution& caution) {
  LeftOutIntervals intervals;
  intervals.whole = cautious_interval(rows, -1, caution);
  const int groups = count_groups(rows);
  for (int group = 0; group < groups; ++group) intervals.without.push_back(cautious_interval(rows, group, caution));
  if (groups < kLeastStretched) return intervals;
  // By bounds that have not seen the row's group.
  std::vector<BoundedRow> bounded;
  for (const LeftOutScore& row : rows) {
    bounded.push_back(
        {times_bound(row, intervals.without[static_cast<std::size_t>(row.group)]), row.stratum.levels, row.group});
  }
  const double least = groups < kLeastShrunk ? 1 : 1 / kMostStretch;
  const auto stretch_without = [&](int skip, ScoreInterval& interval) {
    std::vector<BoundedRow> kept;
    std::vector<double> ratios;
    for (const BoundedRow& row : bounded) {
      if (row.group == skip) continue;
      kept.push_back(row);
      ratios.push_back(row.times_bound);
    }
    const double all = std::clamp(quantile(std::move(ratios), kScoreCoverage), least, kMostStretch);
    for (BoundedRow& row : kept) row.times_bound /= all;
    interval.widen(all);
    interval.stretch = level_stretch(kept, kScoreCoverage);
    // Levels that were widened for their groups leave the others less.
    std::vector<double> left;
    for (const BoundedRow& row : kept) left.push_back(row.times_bound / interval.stretch_of({0, row.levels}));
    interval.widen(std::clamp(quantile(std::move(left), kScoreCoverage), 1 / kMostStretch, 1.0));
  };
  stretch_without(-1, intervals.whole);
  for (int group = 0; group < groups; ++group) {
    stretch_without(group, intervals.without[static_cast<std::size_t>(group)]);
  }
  return intervals;
}

std::optional<ErrorSummary> summarise_left_out(const std::vector<LeftOutScore>& rows,
                                               const LeftOutIntervals& intervals) {
  std::vector<Outcome> outcomes;
  for (const LeftOutScore& row : rows) {
    const ScoreInterval& interval = intervals.without[static_cast<std::size_t>(row.group)];
    Outcome outcome;
    outcome.predicted_s = std::exp(row.log_predicted);
    outcome.low_s = std::exp(row.log_predicted + row.sigma * interval.low_of(row.stratum) - row.growth.low);
    outcome.high_s = std::exp(row.log_predicted + row.sigma * interval.high_of(row.stratum) + row.growth.high);
    outcome.measured_s = std::exp(row.log_measured);
    outcomes.push_back(outcome);
  }
  return summarise_errors(outcomes);
}

double usual_score(const std::vector<LeftOutScore>& rows, int skip) {
  std::vector<double> sizes;
  for (const LeftOutScore& row : rows) {
    if (row.group != skip) sizes.push_back(std::abs(row.score()));
  }
  return sizes.empty() ? 1 : std::max(kLeastUsual, median(std::move(sizes)));
}

void normalise_scores(std::vector<LeftOutScore>& rows) {
  std::map<int, double> usual;
  for (const LeftOutScore& row : rows) {
    if (!usual.contains(row.group)) usual.emplace(row.group, usual_score(rows, row.group));
  }
  for (LeftOutScore& row : rows) row.sigma *= usual.at(row.group);
}

void pool_scores(std::vector<KernelModel>& kernels) {
  std::map<std::string, std::map<std::string, std::vector<KernelModel*>>> layouts;
  for (KernelModel& model : kernels) {
    if (model.left_out_scores.empty() || !model.law->pools_scores()) continue;
    layouts[model.key.layout][model.key.kernel].push_back(&model);
  }
  for (auto& [layout, families] : layouts) {
    std::vector<LeftOutScore> all;
    std::map<std::string, double> usual;
    int first = 0;
    for (auto& [name, members] : families) {
      std::map<std::string, int> numbers;
      std::vector<LeftOutScore> family;
      for (KernelModel* model : members) {
        for (LeftOutScore& row : model->left_out_scores) {
          const std::string& group = model->left_out_groups[static_cast<std::size_t>(row.group)];
          row.group = first + numbers.emplace(group, static_cast<int>(numbers.size())).first->second;
          family.push_back(row);
        }
      }
      first += static_cast<int>(numbers.size());
      usual[name] = usual_score(family, -1);
      normalise_scores(family);
      std::size_t at = 0;
      for (KernelModel* model : members) {
        for (LeftOutScore& row : model->left_out_scores) row = family[at++];
      }
      all.insert(all.end(), family.begin(), family.end());
    }
    Caution caution = caution_for(first);
    caution.symmetric = true;
    const LeftOutIntervals intervals = left_out_intervals(all, caution);
    for (auto& [name, members] : families) {
      for (KernelModel* model : members) {
        model->scores = intervals.whole;
        model->scores.widen(usual[name]);
        model->left_out = summarise_left_out(model->left_out_scores, intervals);
      }
    }
  }
  for (KernelModel& model : kernels) {
    model.left_out_scores.clear();
    model.left_out_groups.clear();
  }
}

}  // namespace moecast
