#include "sim/cost/kernel/level_stretch.h"

#include <algorithm>
#include <map>
#include <set>

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
        std::vector<double> all;
        all.reserve(of_level.size());
        for (const std::size_t i : of_level) {
          const double times = rows[i].times_bound / product(stretch, rows[i]);
          all.push_back(times);
          of_group[rows[i].group].push_back(times);
        }
        std::vector<double> of_groups;
        for (auto& [group, times] : of_group) of_groups.push_back(quantile(std::move(times), coverage));
        // Groups err as a whole: that of most of them, where that is more.
        const double needed = std::max(quantile(std::move(all), coverage), quantile(std::move(of_groups), kMostGroups));
        double& ratio = stretch[factor][level];
        ratio = std::clamp(ratio * needed, kLeastLevelStretch, kMostLevelStretch);
      }
    }
  }
  return stretch;
}

}  // namespace moecast
