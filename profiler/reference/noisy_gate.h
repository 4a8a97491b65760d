#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/architecture/moe.h"
#include "profiler/reference/matrix.h"

// Noisy top-k gating (Shazeer et al. 2017, arXiv 1701.06538, appendix A) with the conventions of the usual small
// PyTorch implementation: unbiased variance, a load of probabilities in training and of counts in evaluation.

namespace moecast {

struct NoisyGateOptions {
  int top_k = 1;
  double epsilon = 1e-2;  ///< added to softplus(x w_noise), so that the noise never vanishes
  ScoreOrder order = ScoreOrder::score_then_top_k;
};

struct NoisyGates {
  Matrix gates;             ///< [tokens, experts]; zero where an expert was not chosen, rows sum to 1
  Matrix noisy;             ///< [tokens, experts] logits with their noise
  Matrix stddev;            ///< [tokens, experts] of the noise; empty in evaluation
  Matrix top_values;        ///< [tokens, min(k + 1, experts)] largest noisy logits, descending
  std::vector<float> load;  ///< [experts] differentiable load (training, k < experts), else counts
};

/// @param clean       [tokens, experts] logits without noise.
/// @param raw_noise   [tokens, experts] x * w_noise; empty = evaluation, without noise.
/// @param draws       [tokens, experts] standard normal draws; as many as raw_noise.
/// @throws UsageError on shapes that differ or top_k outside [1, experts].
NoisyGates noisy_top_k_gates(const Matrix& clean, const Matrix& raw_noise, const Matrix& draws,
                             const NoisyGateOptions& options);

/// Probability that an expert is among the top k when its own noise alone is drawn again.
/// @param top_values  [tokens, >= k + 1] largest noisy values of each token, descending.
Matrix prob_in_top_k(const Matrix& clean, const Matrix& noisy, const Matrix& stddev, const Matrix& top_values,
                     int top_k);

/// Tokens with a gate above zero, one number an expert.
std::vector<float> gates_to_load(const Matrix& gates);
/// Sum of gates of each expert.
std::vector<float> gates_to_importance(const Matrix& gates);

/// Squared coefficient of variation with the unbiased variance: var / (mean^2 + 1e-10). Zero for one value.
double cv_squared(std::span<const float> values);

}  // namespace moecast
