#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "models/routing/row_group.h"

namespace moecast {

/// Experts of a layer in a few classes of like popularity: all that an expectation of rows needs, for any token count.
struct RowClasses {
  static constexpr int kMost = 4;         ///< classes
  static constexpr int kMostGroups = 12;  ///< groups of rows: three quadrature nodes a class
  int count = 0;
  std::array<double, kMost> inclusion{};     ///< mean probability that a token chooses an expert of the class
  std::array<double, kMost> log_left_out{};  ///< ln(1 - inclusion)
  std::array<double, kMost> experts{};       ///< how many experts the class holds
  double most = 0;                           ///< inclusion of the most popular expert
};

/// @param inclusion  one an expert, at least one, in any order.
RowClasses classes_of(std::vector<double> inclusion);

/// All experts alike.
RowClasses uniform_classes(std::int64_t experts, int top_k);

/// Expected groups of rows for `tokens` tokens, written to `groups`; only experts with at least one row count.
/// @return how many groups. Rows of one expert are binomial; a Gauss-Hermite rule of up to three nodes stands for them.
int rows_of_classes(const RowClasses& classes, double tokens,
                    std::array<RowGroup, RowClasses::kMostGroups>& groups) noexcept;

/// Rows of the fullest expert: its mean plus two standard deviations, at most all tokens.
double fullest_of(const RowClasses& classes, double tokens) noexcept;

}  // namespace moecast
