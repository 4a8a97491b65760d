#include "tools/loop/bars.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace moecast {
namespace {

constexpr double kMostNoise = 0.10;
constexpr double kNoiseFactor = 1.5;
constexpr double kLeastCoverage = 0.86;
constexpr double kMostCoverage = 0.94;
constexpr double kLeastTau = 0.97;
/// A rank correlation of fewer cases says nothing.
constexpr int kLeastCasesForTau = 10;

struct Row {
  std::string_view stratum;
  Bars bars;
};

constexpr Bars kStrategy{0.13, 0.11, 0.08, 0.10, 0.20};
constexpr Bars kTransformer{std::nullopt, std::nullopt, std::nullopt, 0.08, 0.16};
constexpr std::array kRows{Row{"onednn fp32, 1 thread", {0.09, 0.07, 0.05, 0.07, 0.14}},
                           Row{"onednn bf16, 1 thread", {0.09, 0.07, 0.06, 0.07, 0.14}},
                           Row{"openblas fp32, 1 thread", {0.12, 0.11, 0.07, 0.09, 0.20}},
                           Row{"2 threads", {0.13, 0.13, 0.09, 0.11, 0.22}},
                           Row{"sorted-grouped", kStrategy},
                           Row{"per-expert-loop", kStrategy},
                           Row{"capacity-padded", kStrategy},
                           Row{"dense-mask", kStrategy},
                           Row{"transformers", kTransformer}};

/// ln of the probability of exactly k successes out of n.
double log_binomial(int k, int n, double p) {
  return std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) + k * std::log(p) + (n - k) * std::log1p(-p);
}

/// Probability of at most (or at least) k successes out of n.
double tail(int k, int n, double p, bool at_most) {
  double sum = 0;
  for (int i = at_most ? 0 : k; i <= (at_most ? k : n); ++i) sum += std::exp(log_binomial(i, n, p));
  return sum;
}

}  // namespace

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::passed: return "passed";
    case Verdict::missed: return "missed";
    case Verdict::undecided: return "undecided";
  }
  return "undecided";
}

Verdict worse(Verdict a, Verdict b) {
  if (a == Verdict::missed || b == Verdict::missed) return Verdict::missed;
  return a == Verdict::undecided || b == Verdict::undecided ? Verdict::undecided : Verdict::passed;
}

std::optional<Bars> bars_of(const std::string& stratum) {
  for (const Row& row : kRows) {
    if (row.stratum == stratum) return row.bars;
  }
  return std::nullopt;
}

Verdict judge_error(double error, double bar, std::optional<double> noise) {
  if (!noise || *noise > kMostNoise) return Verdict::undecided;
  return error <= std::max(bar, kNoiseFactor * *noise) ? Verdict::passed : Verdict::missed;
}

Verdict judge_coverage(int covered, int cases) {
  if (cases == 0) return Verdict::undecided;
  const double ratio = static_cast<double>(covered) / cases;
  if (ratio >= kLeastCoverage && ratio <= kMostCoverage) return Verdict::passed;
  // Would a predictor that covers just enough (or just not too much) be seen like this in one run of twenty?
  const double chance =
      ratio < kLeastCoverage ? tail(covered, cases, kLeastCoverage, true) : tail(covered, cases, kMostCoverage, false);
  return chance < 0.05 ? Verdict::missed : Verdict::undecided;
}

Verdict judge_baselines(double error, double roofline, double nearest, std::optional<double> noise) {
  return judge_error(error, std::min(roofline / 2, nearest), noise);
}

Verdict judge_tau(std::optional<double> tau, int cases) {
  if (cases < kLeastCasesForTau || !tau) return Verdict::undecided;
  return *tau >= kLeastTau ? Verdict::passed : Verdict::missed;
}

double least_tau() { return kLeastTau; }

}  // namespace moecast
