#include "models/routing/expert_orders.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr double kPi = 3.14159265358979323846;

/// Correlation of two normal variables whose ranks correlate as given (Pearson 1907).
double normal_correlation(double of_ranks) { return of_ranks < 1 ? 2 * std::sin(kPi * of_ranks / 6) : 1; }

double normal(Random& random) {
  return std::sqrt(-2 * std::log(1 - random.uniform())) * std::cos(2 * kPi * random.uniform());
}

void check(bool holds, const char* where, double value) {
  if (!holds) throw InputError(where, fmt::format("is {}", value), "from 0 to 1");
}

}  // namespace

ExpertOrders::ExpertOrders(int experts, int groups, int layers, OrderSeries series, std::uint64_t seed)
    : experts_(experts),
      groups_(groups),
      layers_(layers),
      layer_rho_(normal_correlation(series.correlation)),
      step_rho_(normal_correlation(1 - series.drift)),
      seed_(seed),
      random_(seed) {
  check(series.correlation >= 0 && series.correlation <= 1, "correlation", series.correlation);
  check(series.drift >= 0 && series.drift <= 1, "drift", series.drift);
  if (experts < 1 || groups < 1 || layers < 1 || experts % groups != 0) {
    throw InputError("experts", fmt::format("{} in {} groups, {} layers", experts, groups, layers),
                     "equal groups, at least one layer");
  }
  restart();
}

void ExpertOrders::restart() {
  random_ = Random(seed_);
  innovations_.assign(static_cast<std::size_t>(layers_) * static_cast<std::size_t>(experts_ + groups_), 0.0);
  step_ = 0;
  draw(0);
  sort_layers();
}

/// The next innovations: so much of the last ones, the rest new.
void ExpertOrders::draw(double kept) {
  const double fresh = std::sqrt(std::max(0.0, 1 - kept * kept));
  for (double& x : innovations_) x = kept * x + fresh * normal(random_);
}

void ExpertOrders::go_to(std::int64_t step) {
  if (step == step_ || step_rho_ >= 1) return;
  if (step < step_) restart();
  for (; step_ < step; ++step_) draw(step_rho_);
  sort_layers();
}

void ExpertOrders::sort_layers() {
  const auto width = static_cast<std::size_t>(experts_ + groups_);
  const int each = experts_ / groups_;
  const double fresh = std::sqrt(std::max(0.0, 1 - layer_rho_ * layer_rho_));
  std::vector<double> scores(innovations_.begin(), innovations_.begin() + static_cast<std::ptrdiff_t>(width));
  std::vector<std::int32_t> groups(static_cast<std::size_t>(groups_));
  orders_.clear();
  for (int layer = 0; layer < layers_; ++layer) {
    for (std::size_t i = 0; i < width && layer > 0; ++i) {
      scores[i] = layer_rho_ * scores[i] + fresh * innovations_[static_cast<std::size_t>(layer) * width + i];
    }
    const auto above = [&](int offset) {
      return [&scores, offset](std::int32_t a, std::int32_t b) {
        return scores[static_cast<std::size_t>(offset + a)] > scores[static_cast<std::size_t>(offset + b)];
      };
    };
    std::iota(groups.begin(), groups.end(), 0);
    std::ranges::sort(groups, above(experts_));
    for (const std::int32_t group : groups) {
      const auto first = static_cast<std::ptrdiff_t>(orders_.size());
      for (int i = 0; i < each; ++i) orders_.push_back(group * each + i);
      std::sort(orders_.begin() + first, orders_.end(), above(0));
    }
  }
}

std::span<const std::int32_t> ExpertOrders::at(int layer) const {
  const auto experts = static_cast<std::size_t>(experts_);
  return std::span(orders_).subspan(static_cast<std::size_t>(layer) * experts, experts);
}

std::vector<double> ordered_popularity(std::vector<double> popularity, int groups) {
  const std::size_t each = popularity.size() / static_cast<std::size_t>(groups);
  std::vector<std::vector<double>> parts;
  for (std::size_t group = 0; group < static_cast<std::size_t>(groups); ++group) {
    const auto begin = popularity.begin() + static_cast<std::ptrdiff_t>(group * each);
    parts.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(each));
    std::ranges::sort(parts.back(), std::greater<>());
  }
  std::ranges::stable_sort(parts, std::greater<>(), [](const std::vector<double>& part) {
    return std::accumulate(part.begin(), part.end(), 0.0);
  });
  popularity.clear();
  for (const std::vector<double>& part : parts) popularity.insert(popularity.end(), part.begin(), part.end());
  return popularity;
}

}  // namespace moecast
