#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace moecast {

/// How inclusion is found of more than 16 experts. quick: within about 1 % of each expert. exact: integrated
/// as that of few experts is, while experts times k is at most 2^17.
enum class Inclusion { quick, exact };

/// @return experts with a weight, at least k of them. @throws InputError where there are fewer, or k is no choice.
std::size_t check_choice(const std::vector<double>& popularity, int top_k);

/// Inclusion probability of each expert in a draw of k distinct experts by popularity.
std::vector<double> inclusion_probability(const std::vector<double>& popularity, int top_k,
                                          Inclusion how = Inclusion::quick);

/// Expected number of experts that get at least one row.
double expected_distinct_experts(const std::vector<double>& popularity, std::int64_t tokens, int top_k,
                                 Inclusion how = Inclusion::quick);

}  // namespace moecast
