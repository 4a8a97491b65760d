#include "sim/cost/kernel/level_stretch.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "models/core/statistics.h"

namespace moecast {
namespace {

/// Below these a level says little of the next group: its rows come from too few of them.
constexpr std::size_t kLeastLevelRows = 100;
constexpr std::size_t kLeastLevelGroups = 4;
constexpr double kMostLevelStretch = 3;
constexpr double kLeastLevelStretch = 0.5;
constexpr double kMostGroups = 0.8;
/// Passes over the factors: each shifts what the others have to hold, less every time.
constexpr int kLevelPasses = 4;

double product(const ScoreInterval::Stretch& stretch, const BoundedRow& row) {
  double all = 1;
  for (std::size_t factor = 0; factor < kIntervalFactors; ++factor) all *= stretch[factor][row.levels[factor]];
  return all;
}

/// Shares of the rows of a level that its ratio may hold, least first.
constexpr double kLeastShare = 0.86;
constexpr double kMostShare = 0.99;
constexpr double kShareStep = 0.01;

/// Ratio that holds `coverage` of the rows of a group that it has not seen, on average over the rows: a share of all
/// rows, as large as it takes.
double unseen_ratio(const std::map<int, std::vector<double>>& of_group, double coverage) {
  std::vector<std::pair<double, int>> sorted;
  for (const auto& [group, times] : of_group) {
    for (const double value : times) sorted.emplace_back(value, group);
  }
  std::ranges::sort(sorted);
  std::map<int, std::vector<std::size_t>> places;
  for (std::size_t i = 0; i < sorted.size(); ++i) places[sorted[i].second].push_back(i);
  double share = kLeastShare;
  for (; share < kMostShare; share += kShareStep) {
    std::size_t inside = 0;
    for (const auto& [group, own] : places) {
      // The row of that rank among the others: as many places further as rows of the group come before.
      const std::size_t others = sorted.size() - own.size();
      if (others == 0) continue;
      const auto rank = static_cast<std::size_t>(share * static_cast<double>(others - 1));
      std::size_t before = 0;
      while (before < own.size() && own[before] <= rank + before) ++before;
      inside += before;
    }
    if (static_cast<double>(inside) >= coverage * static_cast<double>(sorted.size())) break;
  }
  return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))].first;
}

using RowsByLevel = std::array<std::array<std::vector<std::size_t>, kIntervalLevels>, kIntervalFactors>;

/// Rows of each level that may be stretched; none where a factor has a single level.
RowsByLevel rows_by_level(const std::vector<BoundedRow>& rows) {
  RowsByLevel members;
  for (std::size_t factor = 0; factor < kIntervalFactors; ++factor) {
    auto& levels = members[factor];
    for (std::size_t i = 0; i < rows.size(); ++i) levels[rows[i].levels[factor]].push_back(i);
    const auto filled = std::ranges::count_if(levels, [](const auto& of_level) { return !of_level.empty(); });
    for (auto& of_level : levels) {
      std::set<int> groups;
      for (const std::size_t i : of_level) groups.insert(rows[i].group);
      if (filled < 2 || of_level.size() < kLeastLevelRows || groups.size() < kLeastLevelGroups) of_level.clear();
    }
  }
  return members;
}

}  // namespace

ScoreInterval::Stretch level_stretch(const std::vector<BoundedRow>& rows, double coverage) {
  ScoreInterval::Stretch stretch = ScoreInterval::unstretched();
  const RowsByLevel members = rows_by_level(rows);
  for (int pass = 0; pass < kLevelPasses; ++pass) {
    for (std::size_t factor = 0; factor < kIntervalFactors; ++factor) {
      for (std::size_t level = 0; level < kIntervalLevels; ++level) {
        const std::vector<std::size_t>& of_level = members[factor][level];
        if (of_level.empty()) continue;
        std::map<int, std::vector<double>> of_group;
        for (const std::size_t i : of_level) {
          const double times = rows[i].times_bound / product(stretch, rows[i]);
          of_group[rows[i].group].push_back(times);
        }
        const double unseen = unseen_ratio(of_group, coverage);
        std::vector<double> of_groups;
        for (auto& [group, times] : of_group) of_groups.push_back(quantile(std::move(times), coverage));
        // Groups err as a whole: that of most of them, where that is more.
        const double needed = std::max(unseen, quantile(std::move(of_groups), kMostGroups));
        double& ratio = stretch[factor][level];
        ratio = std::clamp(ratio * needed, kLeastLevelStretch, kMostLevelStretch);
      }
    }
  }
  return stretch;
}

}  // namespace moecast
