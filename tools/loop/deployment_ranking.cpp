#include "tools/loop/deployment_ranking.h"

#include <cmath>
#include <map>
#include <numeric>
#include <optional>
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

/// ln seconds of the runs of each deployment.
using RunsOfLoad = std::map<std::string, std::vector<double>>;

/// Pairs, and pairs in order less those that are not.
struct Balance {
  double pairs = 0;
  double order = 0;
  void add(const Balance& other) {
    pairs += other.pairs;
    order += other.order;
  }
  [[nodiscard]] std::optional<double> tau() const { return pairs > 0 ? std::optional(order / pairs) : std::nullopt; }
};

Balance order_of_reruns(const std::vector<double>& a, const std::vector<double>& b) {
  Balance balance;
  if (a.size() < 2 || b.size() < 2) return balance;
  const double sum_a = std::accumulate(a.begin(), a.end(), 0.0);
  const double sum_b = std::accumulate(b.begin(), b.end(), 0.0);
  const double share = 1 / static_cast<double>(a.size() * b.size());
  for (const double one : a) {
    for (const double other : b) {
      const double others =
          (sum_a - one) / static_cast<double>(a.size() - 1) - (sum_b - other) / static_cast<double>(b.size() - 1);
      if (others == 0 || one == other) continue;
      balance.add({share, (others > 0) == (one > other) ? share : -share});
    }
  }
  return balance;
}

/// By model.
std::map<std::string, Balance> orders_of_reruns(std::span<const RankedService> every) {
  std::map<std::pair<std::string, std::string>, RunsOfLoad> loads;
  for (const RankedService& run : every) {
    loads[{run.model, run.load}][run.deployment].push_back(std::log(run.measured_s));
  }
  std::map<std::string, Balance> models;
  for (const auto& [key, deployments] : loads) {
    for (auto a = deployments.begin(); a != deployments.end(); ++a) {
      for (auto b = deployments.begin(); b != a; ++b) models[key.first].add(order_of_reruns(a->second, b->second));
    }
  }
  return models;
}

}  // namespace

std::vector<DeploymentRanking> rank_deployments(std::span<const RankedService> services,
                                                std::span<const RankedService> every) {
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
  std::map<std::string, Balance> reruns = orders_of_reruns(every);
  Balance all_reruns;
  for (const auto& [model, balance] : reruns) all_reruns.add(balance);
  std::vector<DeploymentRanking> rankings;
  std::int64_t all_pairs = 0;
  std::int64_t all_balance = 0;
  for (const auto& [model, count] : counts) {
    rankings.push_back({model, count.first, static_cast<double>(count.second) / static_cast<double>(count.first),
                        reruns[model].tau()});
    all_pairs += count.first;
    all_balance += count.second;
  }
  if (all_pairs > 0) {
    rankings.push_back(
        {"all", all_pairs, static_cast<double>(all_balance) / static_cast<double>(all_pairs), all_reruns.tau()});
  }
  return rankings;
}

}  // namespace moecast
