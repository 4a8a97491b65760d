#include "profiler/reference/noisy_gate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/core/error.h"

namespace moecast {
namespace {

/// Keeps the mean of no load at all from dividing by zero; the reference implementation's value.
constexpr double kMeanGuard = 1e-10;
/// Keeps the sum of gates that all vanish from dividing by zero; the reference implementation's value.
constexpr double kSumGuard = 1e-6;

double softplus(double x) { return x > 30 ? x : std::log1p(std::exp(x)); }
double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

bool same_shape(const Matrix& a, const Matrix& b) { return a.rows == b.rows && a.cols == b.cols; }

std::vector<std::int64_t> descending(std::span<const float> values) {
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
  });
  return order;
}

/// Gates of one token: softmax over the chosen, or softmax over all, cut to the chosen and divided by their sum.
void set_gates(std::span<const float> logits, std::span<const std::int64_t> chosen, ScoreOrder order,
               std::span<float> gates) {
  const double top = logits[static_cast<std::size_t>(chosen.front())];
  double all = 0;
  for (const float logit : logits) all += std::exp(logit - top);
  double sum = 0;
  for (const std::int64_t expert : chosen) sum += std::exp(logits[static_cast<std::size_t>(expert)] - top);
  for (const std::int64_t expert : chosen) {
    const double raised = std::exp(logits[static_cast<std::size_t>(expert)] - top);
    gates[static_cast<std::size_t>(expert)] = static_cast<float>(
        order == ScoreOrder::top_k_then_score ? raised / sum : (raised / all) / (sum / all + kSumGuard));
  }
}

void check_shapes(const Matrix& clean, const Matrix& raw_noise, const Matrix& draws, int top_k) {
  if (top_k < 1 || top_k > clean.cols) {
    throw UsageError("noisy gate", "top-k lies outside 1 .. experts", "choose at most as many as there are experts");
  }
  if (!raw_noise.values.empty() && (!same_shape(clean, raw_noise) || !same_shape(clean, draws))) {
    throw UsageError("noisy gate", "noise and logits differ in shape", "all three are [tokens, experts]");
  }
}

}  // namespace

NoisyGates noisy_top_k_gates(const Matrix& clean, const Matrix& raw_noise, const Matrix& draws,
                             const NoisyGateOptions& options) {
  check_shapes(clean, raw_noise, draws, options.top_k);
  const bool training = !raw_noise.values.empty();
  NoisyGates out;
  out.noisy = clean;
  if (training) {
    out.stddev = raw_noise;
    for (std::size_t i = 0; i < clean.values.size(); ++i) {
      out.stddev.values[i] = static_cast<float>(softplus(raw_noise.values[i]) + options.epsilon);
      out.noisy.values[i] += draws.values[i] * out.stddev.values[i];
    }
  }
  const std::int64_t kept = std::min<std::int64_t>(options.top_k + 1, clean.cols);
  out.gates = Matrix(clean.rows, clean.cols);
  out.top_values = Matrix(clean.rows, kept);
  for (std::int64_t t = 0; t < clean.rows; ++t) {
    const std::vector<std::int64_t> order = descending(out.noisy.row(t));
    for (std::int64_t j = 0; j < kept; ++j) {
      out.top_values.at(t, j) = out.noisy.at(t, order[static_cast<std::size_t>(j)]);
    }
    set_gates(out.noisy.row(t), std::span(order).first(static_cast<std::size_t>(options.top_k)), options.order,
              out.gates.row(t));
  }
  if (training && options.top_k < clean.cols) {
    out.load = gates_to_importance(prob_in_top_k(clean, out.noisy, out.stddev, out.top_values, options.top_k));
  } else {
    out.load = gates_to_load(out.gates);
  }
  return out;
}

Matrix prob_in_top_k(const Matrix& clean, const Matrix& noisy, const Matrix& stddev, const Matrix& top_values,
                     int top_k) {
  if (top_values.cols <= top_k || !same_shape(clean, noisy) || !same_shape(clean, stddev)) {
    throw UsageError("prob_in_top_k", "needs the k + 1 largest values and equal shapes", {});
  }
  Matrix out(clean.rows, clean.cols);
  for (std::int64_t t = 0; t < clean.rows; ++t) {
    // An expert that is in must beat the k+1st value, one that is out the kth.
    const float beat_if_in = top_values.at(t, top_k);
    const float beat_if_out = top_values.at(t, top_k - 1);
    for (std::int64_t e = 0; e < clean.cols; ++e) {
      const double threshold = noisy.at(t, e) > beat_if_in ? beat_if_in : beat_if_out;
      out.at(t, e) = static_cast<float>(normal_cdf((clean.at(t, e) - threshold) / stddev.at(t, e)));
    }
  }
  return out;
}

std::vector<float> gates_to_load(const Matrix& gates) {
  std::vector<float> load(static_cast<std::size_t>(gates.cols), 0);
  for (std::int64_t t = 0; t < gates.rows; ++t) {
    for (std::int64_t e = 0; e < gates.cols; ++e) load[static_cast<std::size_t>(e)] += gates.at(t, e) > 0 ? 1.0F : 0.0F;
  }
  return load;
}

std::vector<float> gates_to_importance(const Matrix& gates) {
  std::vector<float> sum(static_cast<std::size_t>(gates.cols), 0);
  for (std::int64_t t = 0; t < gates.rows; ++t) {
    for (std::int64_t e = 0; e < gates.cols; ++e) sum[static_cast<std::size_t>(e)] += gates.at(t, e);
  }
  return sum;
}

double cv_squared(std::span<const float> values) {
  if (values.size() < 2) return 0;
  double mean = 0;
  for (const float value : values) mean += value;
  mean /= static_cast<double>(values.size());
  double squares = 0;
  for (const float value : values) squares += (value - mean) * (value - mean);
  return squares / static_cast<double>(values.size() - 1) / (mean * mean + kMeanGuard);
}

}  // namespace moecast
