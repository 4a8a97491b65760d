#include "profiler/reference/weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "models/core/error.h"

namespace moecast {
namespace {

/// Prime, so that rows of usual widths do not repeat each other.
constexpr std::size_t kPatternLength = 65537;

/// Mixing function of splitmix64 (Steele, Lea and Flood 2014).
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

/// Uniform in [-1, 1) from the upper 24 bits.
float to_uniform(std::uint64_t bits) { return static_cast<float>(bits >> 40) * 0x1p-23F - 1.0F; }

}  // namespace

std::uint64_t WeightSource::identity(const WeightKey& key) const {
  std::uint64_t id = mix(seed_ + static_cast<std::uint64_t>(key.part));
  if (variety_ == WeightVariety::alike) return id;
  for (const std::int64_t field : {key.copy, key.block, key.expert, key.index}) {
    id = mix(id ^ static_cast<std::uint64_t>(field));
  }
  return id;
}

Matrix WeightSource::draw(const WeightKey& key, std::int64_t rows, std::int64_t cols, double amplitude) const {
  Matrix out(rows, cols);
  const auto scale = static_cast<float>(amplitude);
  std::uint64_t state = identity(key);
  // Weights that are alike repeat themselves, so that filling costs a copy and not a multiplication a number.
  const std::size_t drawn =
      variety_ == WeightVariety::alike ? std::min(out.values.size(), kPatternLength) : out.values.size();
  for (std::size_t i = 0; i < drawn; ++i) out.values[i] = scale * to_uniform(mix(state++));
  for (std::size_t done = drawn; done < out.values.size(); done += drawn) {
    const std::size_t count = std::min(drawn, out.values.size() - done);
    std::copy_n(out.values.begin(), count, out.values.begin() + static_cast<std::ptrdiff_t>(done));
  }
  return out;
}

Matrix WeightSource::weights(const WeightKey& key, std::int64_t inputs, std::int64_t outputs) const {
  return draw(key, inputs, outputs, std::sqrt(3.0 / static_cast<double>(inputs)));
}

Matrix WeightSource::normal(const WeightKey& key, std::int64_t rows, std::int64_t cols) const {
  Matrix out = draw(key, rows, cols, 1);
  std::uint64_t state = identity(key);
  for (float& value : out.values) {
    // Box-Muller; the radius' argument lies in (0, 1].
    const double radius = std::sqrt(-2 * std::log(0.5 * (1 - static_cast<double>(value)) + 0x1p-25));
    value = static_cast<float>(radius * std::cos(std::numbers::pi * to_uniform(mix(~state++))));
  }
  return out;
}

Matrix model_input(const WeightSource& source, std::int64_t tokens, std::int64_t hidden) {
  return source.draw({.part = Part::input}, tokens, hidden, std::numbers::sqrt3);
}

std::vector<std::int64_t> model_token_ids(const WeightSource& source, std::int64_t tokens, std::int64_t vocabulary) {
  const Matrix draws = source.draw({.part = Part::input}, tokens, 1, 1);
  std::vector<std::int64_t> ids;
  for (const float draw : draws.values) {
    const double share = 0.5 * (static_cast<double>(draw) + 1);
    ids.push_back(std::min(vocabulary - 1, static_cast<std::int64_t>(share * static_cast<double>(vocabulary))));
  }
  return ids;
}

Matrix norm_weight(const WeightSource& source, const WeightKey& key, std::int64_t hidden) {
  Matrix weight = source.draw(key, 1, hidden, 0.5);
  for (float& value : weight.values) value += 1;
  return weight;
}

float round_to(float value, DType dtype) {
  if (dtype == DType::fp32) return value;
  if (dtype != DType::bf16) throw UsageError("dtype", "the reference runtime rounds to fp32 and bf16 only", {});
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
  return std::bit_cast<float>(rounded & 0xffff0000U);
}

}  // namespace moecast
