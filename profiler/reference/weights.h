#pragma once
#include <cstdint>
#include <vector>

#include "models/core/dtype.h"
#include "profiler/reference/matrix.h"

namespace moecast {

/// What a random matrix is for. Together with the other fields of WeightKey it names one matrix of a model.
enum class Part {
  input,
  router,
  router_bias,
  selection_bias,
  noise,
  noise_draws,
  expert_up,
  expert_up_bias,
  expert_down,
  expert_down_bias,
  shared_up,
  shared_down,
  shared_gate,
  residual_up,
  residual_down,
  ffn_up,
  ffn_down,
  norm,
  qkv,
  attention_out,
  key_cache,
  value_cache,
  embedding,
  head
};

inline constexpr double kBiasAmplitude = 0.1;
/// Small against the planted gap and against the spread of scores, as trained selection biases are.
inline constexpr double kSelectionBiasAmplitude = 0.05;

struct WeightKey {
  Part part = Part::input;
  std::int64_t copy = 0;   ///< which of Workload.copies
  std::int64_t block = 0;  ///< blocks of the whole model, counted through
  std::int64_t expert = 0;
  std::int64_t index = 0;  ///< depth, or layer of a router network
};

/// distinct: every matrix its own numbers. alike: experts, blocks and copies share the numbers of a part, so that a
/// gigabyte of weights is filled at the speed of a copy (timing runs).
enum class WeightVariety { distinct, alike };

/// Random weights by name: the same key always gives the same numbers, so nothing needs to be kept for a comparison.
class WeightSource {
 public:
  WeightSource(std::uint64_t seed, WeightVariety variety) : seed_(seed), variety_(variety) {}

  /// [rows, cols], uniform in [-amplitude, amplitude].
  [[nodiscard]] Matrix draw(const WeightKey& key, std::int64_t rows, std::int64_t cols, double amplitude) const;
  /// Weights [inputs, outputs] that keep the variance of their input: amplitude sqrt(3 / inputs).
  [[nodiscard]] Matrix weights(const WeightKey& key, std::int64_t inputs, std::int64_t outputs) const;
  /// The same as standard normal numbers.
  [[nodiscard]] Matrix normal(const WeightKey& key, std::int64_t rows, std::int64_t cols) const;
  /// Equal for keys that draw the same numbers.
  [[nodiscard]] std::uint64_t identity(const WeightKey& key) const;
  [[nodiscard]] WeightVariety variety() const { return variety_; }

 private:
  std::uint64_t seed_;
  WeightVariety variety_;
};

/// Residual stream [tokens, hidden] that enters a model without vocabulary: unit variance.
Matrix model_input(const WeightSource& source, std::int64_t tokens, std::int64_t hidden);
/// Tokens that enter a model with a vocabulary.
std::vector<std::int64_t> model_token_ids(const WeightSource& source, std::int64_t tokens, std::int64_t vocabulary);
/// Weight [1, hidden] of an RMS norm: between 0.5 and 1.5.
Matrix norm_weight(const WeightSource& source, const WeightKey& key, std::int64_t hidden);

/// Nearest number of the format (ties to even); fp32 is returned unchanged. @throws UsageError on other formats.
float round_to(float value, DType dtype);

}  // namespace moecast
