#include "profiler/cpu/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "models/core/error.h"

namespace moecast {
namespace {

struct Case {
  std::string backend;
  DType dtype;
  int threads;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const std::string& backend : gemm_backends()) {
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      if (!gemm_supports(backend, dtype)) continue;
      for (const int threads : {1, 2}) all.push_back({backend, dtype, threads});
    }
  }
  return all;
}

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(generator);
  return values;
}

std::uint16_t to_bf16(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

class EveryBackend : public testing::TestWithParam<Case> {};

TEST_P(EveryBackend, EqualsThePlainProductForEveryRowCount) {
  const auto [backend, dtype, threads] = GetParam();
  // Relative to sqrt(k): rounding of bf16 inputs (2^-9 each) or of fp32 sums.
  const double tolerance = dtype == DType::bf16 ? 0.02 : 1e-5;
  for (const auto& [n, k] : {std::pair{16, 8}, std::pair{96, 200}, std::pair{70, 33}}) {
    const auto gemm = make_gemm(backend, dtype, n, k, threads);
    const auto weights = random_values(static_cast<std::size_t>(n * k), 1);
    std::vector<char> packed(gemm->packed_bytes());
    gemm->pack(weights.data(), packed.data());
    for (const int m : {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 65, 129}) {
      const auto rows = static_cast<std::size_t>(gemm->padded_rows(m));
      ASSERT_GE(rows, static_cast<std::size_t>(m));
      auto a = random_values(rows * k, 2);
      std::vector<std::uint16_t> a16(a.size());
      for (std::size_t i = 0; i < a.size(); ++i) a16[i] = to_bf16(a[i]);
      std::vector<float> c(rows * n, std::nanf(""));
      gemm->run(m, dtype == DType::bf16 ? static_cast<const void*>(a16.data()) : a.data(), packed.data(), c.data());
      for (int row = 0; row < m; ++row) {
        for (int column = 0; column < n; ++column) {
          double expected = 0;
          for (int i = 0; i < k; ++i) expected += static_cast<double>(a[row * k + i]) * weights[i * n + column];
          ASSERT_NEAR(c[row * n + column], expected, tolerance * std::sqrt(k)) << m << " rows, row " << row;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Gemm, EveryBackend, testing::ValuesIn(cases()), [](const auto& tested) {
  return tested.param.backend + "_" + std::string(to_string(tested.param.dtype)) + "_" +
         std::to_string(tested.param.threads);
});

TEST(MakeGemm, SaysWhichBackendsThereAre) {
  try {
    make_gemm("mkl", DType::fp32, 8, 8, 1);
    FAIL() << "accepted";
  } catch (const DeviceError& error) {
    EXPECT_NE(error.hint().find("eigen"), std::string::npos);
  }
}

TEST(MakeGemm, RefusesADtypeThatTheBackendLacks) {
  EXPECT_THROW(make_gemm("eigen", DType::bf16, 8, 8, 1), DeviceError);
}

TEST(RowBucket, RoundsUpAsDocumented) {
  EXPECT_EQ(row_bucket(RowBucket::tile16, 1), 16);
  EXPECT_EQ(row_bucket(RowBucket::tile16, 113), 128);
  EXPECT_EQ(row_bucket(RowBucket::tile16, 129), 144);
  EXPECT_EQ(row_bucket(RowBucket::multiple4, 2), 2);
  EXPECT_EQ(row_bucket(RowBucket::multiple4, 3), 4);
  EXPECT_EQ(row_bucket(RowBucket::exact, 77), 77);
  EXPECT_EQ(row_bucket(RowBucket::tile16, 0), 0);
}

}  // namespace
}  // namespace moecast
