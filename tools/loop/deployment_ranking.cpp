#include "tools/loop/deployment_ranking.h"

#include <cmath>
#include <map>
#include <tuple>
#include <utility>

namespace moecast {

namespace {

/// Sums of ln seconds.
struct Runs {
  double predicted = 0;
  double measured = 0;
  double count = 0;
};

/// But for the rounding of a mean.
bool alike(double a, double b) { return std::abs(a / b - 1) < 1e-12; }

std::vector<RankedService> means_of_runs(std::span<const RankedService> services) {
  std::map<std::tuple<std::string, std::string, std::string>, Runs> all;
  for (const RankedService& service : services) {
    Runs& runs = all[{service.model, service.load, service.deployment}];
    runs.predicted += std::log(service.predicted_s);
    runs.measured += std::log(service.measured_s);
    ++runs.count;
  }
  std::vector<RankedService> means;
  for (const auto& [key, runs] : all) {
    const auto& [model, load, deployment] = key;
    means.push_back(
        {model, load, deployment, std::exp(runs.predicted / runs.count), std::exp(runs.measured / runs.count)});
  }
  return means;
}

}  // namespace

std::vector<DeploymentRanking> rank_deployments(std::span<const RankedService> services) {
  const std::vector<RankedService> means = means_of_runs(services);
  std::map<std::pair<std::string, std::string>, std::vector<const RankedService*>> groups;
  for (const RankedService& service : means) groups[{service.model, service.load}].push_back(&service);
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> counts;  // pairs, pairs in order less those that are not
  for (const auto& [key, group] : groups) {
    for (std::size_t i = 0; i < group.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        const double order =
            (group[i]->predicted_s - group[j]->predicted_s) * (group[i]->measured_s - group[j]->measured_s);
        if (alike(group[i]->predicted_s, group[j]->predicted_s) || alike(group[i]->measured_s, group[j]->measured_s))
          continue;
        auto& [pairs, balance] = counts[key.first];
        ++pairs;
        balance += order > 0 ? 1 : -1;
      }
    }
  }
  std::vector<DeploymentRanking> rankings;
  std::int64_t all_pairs = 0;
  std::int64_t all_balance = 0;
  for (const auto& [model, count] : counts) {
    rankings.push_back({model, count.first, static_cast<double>(count.second) / static_cast<double>(count.first)});
    all_pairs += count.first;
    all_balance += count.second;
  }
  if (all_pairs > 0) {
    rankings.push_back({"all", all_pairs, static_cast<double>(all_balance) / static_cast<double>(all_pairs)});
  }
  return rankings;
}

}  // namespace moecast
