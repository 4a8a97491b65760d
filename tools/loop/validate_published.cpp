#include "tools/loop/validate_published.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "models/core/statistics.h"
#include "sim/cost/kernel/published_law.h"

namespace moecast {
namespace {

constexpr std::array<std::string_view, 3> kPublishedOrder{"all", "kind", "library"};
/// An interval is as wide as 90 % of the errors of rows that were left out, and as those of most groups.
constexpr double kCovered = 0.9;
constexpr double kOfGroups = 0.6;
/// A factor of two, where nothing else of a kind was left out.
constexpr double kUnknownWidth = 0.69;

/// A row that was left out with its whole EP size.
struct LeftOutPoint {
  std::string library;
  PublishedKind kind;
  int group;  ///< one a library and EP size
  double measured_s, predicted_s, nearest_s;
  [[nodiscard]] double log_error() const { return std::abs(std::log(predicted_s / measured_s)); }
};

double nearest_of(const std::vector<PublishedPoint>& others, const PublishedPoint& asked) {
  const auto apart = [&](const PublishedPoint& one) {
    const double far = std::abs(std::log((one.nic_bytes + one.nvlink_bytes) / (asked.nic_bytes + asked.nvlink_bytes)));
    return std::pair(one.combine != asked.combine, far);
  };
  return std::ranges::min_element(others, {}, apart)->seconds;
}

/// Half width in ln seconds, from rows of the kind outside the group.
double left_out_width(const std::vector<LeftOutPoint>& all, PublishedKind kind, int without) {
  std::map<int, std::vector<double>> groups;
  std::vector<double> pooled;
  for (const LeftOutPoint& one : all) {
    if (one.kind != kind || one.group == without) continue;
    groups[one.group].push_back(one.log_error());
    pooled.push_back(one.log_error());
  }
  if (pooled.empty()) return kUnknownWidth;
  std::vector<double> each;
  for (auto& [group, errors] : groups) each.push_back(quantile(errors, kCovered));
  return std::max(quantile(pooled, kCovered), quantile(each, kOfGroups));
}

}  // namespace

KernelValidationReport validate_published(const std::vector<std::string>& tables) {
  KernelValidationReport report;
  std::map<std::tuple<PublishedKind, std::string>, std::vector<PublishedPoint>> libraries;
  for (const std::string& path : tables) {
    const PublishedTable table = read_published_table(path);
    report.table.rows += table.read;
    for (const auto& [reason, rows] : table.left_out) report.table.left_out[reason] += rows;
    for (const PublishedExchange& row : table.rows) {
      const std::optional<PublishedPoint> point = published_point(row);
      if (!point) {
        ++report.table.left_out["too little is said to know the bytes"];
        continue;
      }
      ++report.table.kept;
      const std::string mode = row.mode.empty() ? "" : ", " + row.mode;
      libraries[{point->kind, fmt::format("{} on {}{}", row.library, row.gpu, mode)}].push_back(*point);
    }
  }
  std::vector<LeftOutPoint> judged;
  int group = 0;
  for (const auto& [key, points] : libraries) {
    const auto& [kind, name] = key;
    std::set<double> sizes;
    for (const PublishedPoint& point : points) sizes.insert(point.ranks);
    if (sizes.size() < 2) {
      report.not_judged["libraries with a single EP size"] += static_cast<std::int64_t>(points.size());
      continue;
    }
    for (const double size : sizes) {
      std::vector<PublishedPoint> others;
      std::ranges::copy_if(points, std::back_inserter(others), [&](const auto& one) { return one.ranks != size; });
      const PublishedLaw law = PublishedLaw::fit(others);
      for (const PublishedPoint& point : points) {
        if (point.ranks != size) continue;
        judged.push_back({name, kind, group, point.seconds, law.seconds(point), nearest_of(others, point)});
      }
      ++group;
    }
    const PublishedLaw law = PublishedLaw::fit(points);
    report.notes.push_back(
        fmt::format("{}, {}: starts after {:.0f} us, {:.0f} GB/s a NIC, {:.0f} GB/s of NVLink{}", name, to_string(kind),
                    1e6 * law.start_s(), law.nic() / 1e9, law.nvlink() / 1e9,
                    points.front().efa ? fmt::format(", over EFA x nodes^{:.2f}", law.growth()) : ""));
  }
  Strata strata;
  for (const LeftOutPoint& one : judged) {
    const double width = left_out_width(judged, one.kind, one.group);
    Outcome outcome;
    outcome.measured_s = one.measured_s;
    outcome.predicted_s = one.predicted_s;
    outcome.low_s = one.predicted_s * std::exp(-width);
    outcome.high_s = one.predicted_s * std::exp(width);
    outcome.nearest_s = one.nearest_s;
    for (const std::string& name : {std::string("all"), fmt::format("kind {}", to_string(one.kind)),
                                    fmt::format("library {}: {}", to_string(one.kind), one.library)}) {
      strata.add(name, outcome);
    }
  }
  report.strata = strata.summaries(kPublishedOrder);
  return report;
}

}  // namespace moecast
