#include "sim/event/layer_popularity.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace moecast {
namespace {

double variation(const std::vector<double>& popularity) {
  double squares = 0;
  for (const double p : popularity) squares += p * p;
  // Weights sum to 1.
  return std::sqrt(std::max(0.0, squares * static_cast<double>(popularity.size()) - 1));
}

}  // namespace

std::vector<double> popularity_of(const Workload& workload, std::int64_t experts, int groups, std::uint64_t seed) {
  if (workload.rows_per_expert.empty()) {
    std::vector<double> popularity = expert_popularity(workload.load, experts);
    if (workload.load.kind == LoadKind::zipf && groups > 1) {
      std::mt19937_64 generator(seed);
      std::ranges::shuffle(popularity, generator);
    }
    return popularity;
  }
  ExpertLoad exact;
  exact.kind = LoadKind::histogram;
  exact.histogram.assign(workload.rows_per_expert.begin(), workload.rows_per_expert.end());
  return expert_popularity(exact, experts);
}

bool draws_popularity(const Workload& workload) {
  return workload.rows_per_expert.empty() &&
         (workload.load.kind == LoadKind::log_normal || workload.load.kind == LoadKind::dirichlet);
}

std::vector<std::vector<double>> drawn_layers(const Workload& workload, std::int64_t experts, int layers) {
  constexpr std::uint64_t kApart = 1'000'003;  // seeds of layers do not meet those of nearby questions
  std::vector<std::vector<double>> drawn;
  ExpertLoad load = workload.load;
  for (int layer = 0; layer < layers; ++layer) {
    load.seed = workload.load.seed + kApart * static_cast<std::uint64_t>(layer);
    drawn.push_back(expert_popularity(load, experts));
  }
  return drawn;
}

double mean_variation(const Workload& workload, const std::vector<double>& popularity, int layers) {
  if (!draws_popularity(workload)) return variation(popularity);
  double sum = 0;
  for (const auto& drawn : drawn_layers(workload, std::ssize(popularity), layers)) sum += variation(drawn);
  return sum / layers;
}

}  // namespace moecast
