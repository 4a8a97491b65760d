#include "models/routing/power_law.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moecast {

PowerLaw::PowerLaw(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, double alpha)
    : tokens_(tokens), all_rows_(tokens * top_k), exponent_(std::abs(1 - alpha) < 1e-9 ? 1e-9 : 1 - alpha) {
  const double low = all_rows_ > experts ? 1 : 0.01;
  const double high = all_rows_ > experts ? std::max(static_cast<double>(tokens) * 0.8, low * 1.0001) : 2;
  from_ = std::pow(low, exponent_);
  width_ = std::pow(high, exponent_) - from_;
}

double PowerLaw::weight(double uniform) const { return std::pow(width_ * uniform + from_, 1 / exponent_); }

void PowerLaw::rows(std::span<const double> weights, std::span<std::int64_t> rows) const {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (std::size_t e = 0; e < weights.size(); ++e) {
    const double wanted = std::nearbyint(weights[e] / sum * static_cast<double>(all_rows_));
    rows[e] = std::min(static_cast<std::int64_t>(wanted), tokens_);
  }
}

}  // namespace moecast
