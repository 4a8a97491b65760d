#include "profiler/cpu/stages.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "models/core/error.h"
#include "profiler/cpu/bf16.h"

namespace moecast {
namespace {

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

TEST(Activate, EqualsTheDefinitions) {
  const std::vector<float> h{-2, 0.5F, 3, 1, 2, -1};  // gated, width 3: gate -2 .5 3, up 1 2 -1
  std::vector<float> out(3);
  activate(h.data(), out.data(), 1, 3, true, Activation::silu, DType::fp32, 1);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(out[i], h[i] / (1 + std::exp(-h[i])) * h[3 + i], 1e-5);
  activate(h.data(), out.data(), 1, 3, false, Activation::relu_squared, DType::fp32, 1);
  EXPECT_FLOAT_EQ(out[0], 0);
  EXPECT_FLOAT_EQ(out[2], 9);
  activate(h.data(), out.data(), 1, 3, false, Activation::gelu, DType::fp32, 1);
  EXPECT_NEAR(out[1], 0.5 * 0.5 * (1 + std::erf(0.5 / std::sqrt(2.0))), 2e-3);  // tanh form against erf form
}

TEST(Activate, SurvivesExtremeInputs) {
  const std::vector<float> h{-1e4F, 1e4F, 0};
  std::vector<float> out(3);
  activate(h.data(), out.data(), 1, 3, false, Activation::silu, DType::fp32, 2);
  EXPECT_NEAR(out[0], 0, 1e-6);
  EXPECT_NEAR(out[1], 1e4F, 1);
  EXPECT_EQ(out[2], 0);
}

TEST(SortByExpert, IsStableAndSkipsDroppedCopies) {
  const std::vector<std::int32_t> experts{2, 0, -1, 2, 0, 1};
  std::vector<std::int32_t> position(6);
  std::vector<std::int32_t> offsets(4);
  sort_by_expert(experts, 3, position, offsets);
  EXPECT_EQ(position, (std::vector<std::int32_t>{3, 0, -1, 4, 1, 2}));
  EXPECT_EQ(offsets, (std::vector<std::int32_t>{0, 2, 3, 5}));
}

TEST(PermuteRows, UnpermuteWithGatesThatSumToOneGivesTheInputBack) {
  constexpr int kTokens = 5;
  constexpr int kHidden = 7;
  const auto x = random_values(kTokens * kHidden, 3);
  const std::vector<std::int32_t> position{4, 9, 0, 1, 2, 3, 5, 6, 8, 7};
  const std::vector<float> gates{.3F, .7F, .5F, .5F, .1F, .9F, 1, 0, .25F, .75F};
  std::vector<float> rows(10 * kHidden);
  std::vector<float> out(x.size());
  permute_rows(x.data(), rows.data(), position, kTokens, 2, kHidden * sizeof(float), 2);
  unpermute_rows(rows.data(), out.data(), position, gates, kTokens, 2, kHidden, 2);
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(out[i], x[i], 1e-6);
}

TEST(UnpermuteRows, AFullyDroppedTokenIsZero) {
  std::vector<float> out{5, 5};
  unpermute_rows(nullptr, out.data(), std::vector<std::int32_t>{-1}, std::vector<float>{1}, 1, 1, 2, 1);
  EXPECT_EQ(out, (std::vector<float>{0, 0}));
}

TEST(RmsNorm, HasUnitMeanSquare) {
  const auto x = random_values(64, 5);
  const std::vector<float> weight(64, 1);
  std::vector<float> out(64);
  rms_norm(x.data(), weight.data(), out.data(), 1, 64, DType::fp32, 1);
  double square = 0;
  for (const float value : out) square += value * value;
  EXPECT_NEAR(square / 64, 1, 1e-4);
}

struct AttentionCase {
  int query, context, heads, kv_heads;
  DType dtype;
};

class Attention : public testing::TestWithParam<AttentionCase> {};

TEST_P(Attention, EqualsThePlainSoftmax) {
  const auto [query, context, heads, kv_heads, dtype] = GetParam();
  constexpr int kBatch = 2;
  constexpr int kSize = 16;
  const int capacity = context + 3;
  const auto q = random_values(static_cast<std::size_t>(kBatch * query * heads * kSize), 1);
  auto keys = random_values(static_cast<std::size_t>(kBatch * capacity * kv_heads * kSize), 2);
  auto values = random_values(keys.size(), 3);
  std::vector<std::uint16_t> keys16(keys.size());
  std::vector<std::uint16_t> values16(keys.size());
  if (dtype == DType::bf16) {
    to_dtype(keys.data(), keys16.data(), static_cast<std::int64_t>(keys.size()), dtype, 1);
    to_dtype(values.data(), values16.data(), static_cast<std::int64_t>(keys.size()), dtype, 1);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      keys[i] = bf16_to_float(keys16[i]);
      values[i] = bf16_to_float(values16[i]);
    }
  }
  std::vector<float> out(q.size());
  std::vector<std::uint16_t> out16(q.size());
  if (dtype == DType::bf16) {
    attention(q.data(), keys16.data(), values16.data(), out16.data(), kBatch, query, context, capacity, heads, kv_heads,
              kSize, dtype, 2);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = bf16_to_float(out16[i]);
  } else {
    attention(q.data(), keys.data(), values.data(), out.data(), kBatch, query, context, capacity, heads, kv_heads,
              kSize, dtype, 2);
  }
  const auto at = [&](const std::vector<float>& cache, int b, int c, int h, int i) {
    return static_cast<double>(cache[((b * capacity + c) * kv_heads + h / (heads / kv_heads)) * kSize + i]);
  };
  for (int b = 0; b < kBatch; ++b) {
    for (int t = 0; t < query; ++t) {
      for (int h = 0; h < heads; ++h) {
        const std::size_t row = static_cast<std::size_t>((b * query + t) * heads + h) * kSize;
        std::vector<double> weight;
        double total = 0;
        for (int c = 0; c <= context - query + t; ++c) {
          double score = 0;
          for (int i = 0; i < kSize; ++i) score += q[row + i] * at(keys, b, c, h, i);
          weight.push_back(std::exp(score / 4.0));  // sqrt(16)
          total += weight.back();
        }
        for (int i = 0; i < kSize; ++i) {
          double expected = 0;
          for (std::size_t c = 0; c < weight.size(); ++c) {
            expected += weight[c] / total * at(values, b, static_cast<int>(c), h, i);
          }
          ASSERT_NEAR(out[row + i], expected, dtype == DType::bf16 ? 0.02 : 1e-5);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Attention,
                         testing::Values(AttentionCase{1, 130, 4, 2, DType::fp32},
                                         AttentionCase{9, 9, 4, 4, DType::fp32},
                                         AttentionCase{3, 70, 6, 2, DType::bf16},
                                         AttentionCase{1, 1, 2, 1, DType::bf16}));

TEST(Attention, RefusesHeadsThatKvHeadsDoNotDivide) {
  EXPECT_THROW(attention(nullptr, nullptr, nullptr, nullptr, 1, 1, 1, 1, 3, 2, 8, DType::fp32, 1), InputError);
}

}  // namespace
}  // namespace moecast
