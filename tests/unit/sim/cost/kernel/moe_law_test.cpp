// Physics of fused experts: which tiles they run on.
#include <gtest/gtest.h>

#include <cmath>

#include "sim/cost/kernel/kernel_law.h"
#include "sim/cost/kernel/overlap.h"
#include "tests/support/made_up_kernels.h"

namespace moecast {
namespace {

const KernelKey kSglang{"sglang", "1.0", "moe", "sglang_fused_moe_triton", "bfloat16"};

std::shared_ptr<const KernelLaw> law_of(bool small_default) {
  DeviceLimits device = test::made_up_device();
  device.tuned.push_back({"moe", "sglang_fused_moe_triton", {"bfloat16"}, {{8, 7168}}, small_default, "made up"});
  return make_kernel_law(kSglang, device);
}

/// Seconds of a row at the priors.
double seconds_of(const KernelLaw& law, const std::vector<double>& row, std::optional<RankLoad> load = {}) {
  RankLoadCache loads;
  std::array<double, KernelLaw::kMostTerms> terms{};
  law.derive({row, load}, loads, terms.data());
  std::vector<double> logs;
  for (const KernelLaw::Coefficient& known : law.coefficients()) logs.push_back(known.prior);
  std::array<double, KernelLaw::kMostCoefficients> prepared{};
  law.prepare(logs.data(), prepared.data());
  return std::exp(law.log_seconds(terms.data(), prepared.data()));
}

/// 8 experts of 4096 x width, top-2, on one rank.
double seconds(const KernelLaw& law, double tokens, double width) {
  return seconds_of(law, {tokens, 4096, width, 2, 8, 1, 1, 0, 3});
}

TEST(MoeLaw, DefaultTilesAreSlowerThanTunedOnes) {
  const auto law = law_of(true);
  const auto unknown = make_kernel_law(kSglang, test::made_up_device());
  // Width 7168 is tuned, 7152 and 7184 are not; without a list nothing is told apart. Arithmetic bound: twice as long
  // (1 + exp(0)); 0.1 is for the elementwise part, which stays.
  for (const double width : {7152.0, 7184.0}) {
    const double without = seconds(*unknown, 16384, width) / seconds(*unknown, 16384, 7168);
    EXPECT_NEAR(seconds(*law, 16384, width) / seconds(*law, 16384, 7168) / without, 2, 0.1) << width;
  }
  EXPECT_DOUBLE_EQ(seconds(*law, 16384, 7168), seconds(*unknown, 16384, 7168));
}

TEST(MoeLaw, SmallDefaultTilesRunUpToAsManyTokensAsExperts) {
  // 8 experts. Bound by the weights: 1 + exp(-2) = 1.135 times as long on small tiles, 1 + exp(-1) = 1.368 on large
  // ones.
  const auto ratio = [](const KernelLaw& law, double tokens) {
    return seconds(law, tokens, 7152) / seconds(law, tokens, 7168) * 7168 / 7152;
  };
  EXPECT_NEAR(ratio(*law_of(true), 8), 1.135, 0.02);
  EXPECT_NEAR(ratio(*law_of(true), 9), 1.368, 0.1);
  EXPECT_NEAR(ratio(*law_of(false), 8), 1.368, 0.1);
}

TEST(MoeLaw, ItsCoefficientsAreThoseOfWhatIsKnown) {
  EXPECT_EQ(law_of(true)->coefficients().size(), 21U);
  EXPECT_EQ(make_kernel_law(kSglang, test::made_up_device())->coefficients().size(), 17U);
  KernelKey other = kSglang;
  other.dtype = "fp8_block";
  DeviceLimits device = test::made_up_device();
  device.tuned.push_back({"moe", "sglang_fused_moe_triton", {"bfloat16"}, {{8, 7168}}, true, "made up"});
  EXPECT_EQ(make_kernel_law(other, device)->coefficients().size(), 17U);
}

TEST(MoeLaw, TritonsTilesOfOtherRanksExpertsWriteZeros) {
  KernelKey skipping = kSglang;
  skipping.kernel = "moe_torch_flow_cutlass";  // computes its own tiles only
  const auto triton = make_kernel_law(kSglang, test::made_up_device());
  const auto cutlass = make_kernel_law(skipping, test::made_up_device());
  // The rank's own load is the same; experts of the others cost exp(1.5) = 4.48 rows each, of exp(-1) x 4096 + exp(-2)
  // x 2048 columns of 2 bytes.
  const RankLoad own{8, 4, 2};
  const double bandwidth = test::made_up_device().bandwidth;
  const auto extra = [&](double experts) {  // of 4096 x 2048, top-8, on one of 64 ranks, 64 tokens
    const std::vector<double> asked{64, 4096, 2048, 8, experts, 1, 64, 0, 3};
    return seconds_of(*triton, asked, own) - seconds_of(*cutlass, asked, own);
  };
  const double row = 2 / bandwidth * (std::exp(-1.0) * 4096 + std::exp(-2.0) * 2048);
  // 64 ranks that touch 4 experts each touch 256; no more than there are.
  EXPECT_NEAR(extra(512), std::exp(1.5) * 252 * row, 1e-9);
  EXPECT_NEAR(extra(128), std::exp(1.5) * 124 * row, 1e-9);
  // A rank alone has no others, whatever its load.
  const auto alone = [](const KernelLaw& law) {
    RankLoadCache loads;
    const std::vector<double> values{32, 4096, 2048, 8, 256, 1, 1, 1.01, 3};
    std::array<double, KernelLaw::kMostTerms> terms{};
    law.derive({values}, loads, terms.data());
    return terms;
  };
  EXPECT_EQ(alone(*triton), alone(*cutlass));
}

TEST(MoeLaw, PartsThatOverlapAreTheirPowerSum) {
  for (const double q : {1.0, 1.5, 4.0}) {
    for (const double a : {1e-9, 3e-6, 0.7}) {
      for (const double b : {1e-9, 5e-6, 0.7}) {
        EXPECT_NEAR(overlapped_pair(q, a, b), std::pow(std::pow(a, q) + std::pow(b, q), 1 / q), 1e-12 * (a + b));
      }
    }
    EXPECT_DOUBLE_EQ(overlapped_pair(q, 0, 2e-6), 2e-6);
    EXPECT_DOUBLE_EQ(overlapped_pair(q, 2e-6, 0), 2e-6);
    EXPECT_EQ(overlapped_pair(q, 0, 0), 0);
  }
}

}  // namespace
}  // namespace moecast
