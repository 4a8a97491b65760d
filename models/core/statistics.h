#pragma once
#include <optional>
#include <span>
#include <vector>

namespace moecast {

/// Quantile with linear interpolation between order statistics (type 7). @param share 0 to 1. Empty input: NaN-free 0
/// is not an answer, so the caller must not ask.
double quantile(std::vector<double> values, double share);
double median(std::vector<double> values);
double mean(std::span<const double> values);

/// Kendall's tau-b of two equally long series, ties corrected; nullopt where one of them is constant (or has one
/// value): there is no order to compare. O(n log n).
std::optional<double> kendall_tau(std::span<const double> a, std::span<const double> b);

}  // namespace moecast
