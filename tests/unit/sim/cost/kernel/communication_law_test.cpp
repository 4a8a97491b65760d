// Laws of collectives, dispatch and combine, against hand-worked cases and against what another implementation of them
// says of 8 and 16 nodes.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <numeric>

#include "sim/cost/kernel/expert_traffic.h"
#include "sim/cost/kernel/kernel_law.h"

namespace moecast {
namespace {

constexpr double kUs = 1e-6;

DeviceLimits h100() { return {3.35e12, 989e12, 50e6, 132, 450e9, 50e9, true}; }

KernelKey key_of(const std::string& layout, const std::string& kernel) { return {"library", "1", layout, kernel, ""}; }

double seconds(const KernelLaw& law, const std::vector<double>& row, const std::vector<double>& coefficients) {
  std::vector<double> logs;
  for (const double value : coefficients) logs.push_back(std::log(value));
  std::array<double, KernelLaw::kMostCoefficients> prepared{};
  law.prepare(logs.data(), prepared.data());
  std::array<double, KernelLaw::kMostTerms> terms{};
  RankLoadCache loads;
  law.derive({row}, loads, terms.data());
  return std::exp(law.log_seconds(terms.data(), prepared.data()));
}

/// Three paths far apart: only one of them is ever chosen.
std::vector<double> collective_coefficients() {
  return {5 * kUs,  1 * kUs, 0.1, 50 * kUs, 1 * kUs,  0.4, 500 * kUs, 1 * kUs, 0.8, 1.5,
          60 * kUs, 0.6,     1,   1,        20 * kUs, 0.9, 12 * kUs,  6 * kUs, 0.93};
}

TEST(CollectiveLaw, IsStartStepsWireAndLocalCopy) {
  const auto law = make_kernel_law(key_of("nccl", "all_gather"), h100());
  // 1 KiB elements of 2 bytes on 8 ranks, path 1: 5 + 7 us and 2048 bytes.
  const double wire = 2048 * 7 / 8.0 / (0.1 * 450e9);
  const double local = 2048 / 8.0 / (1.5 * 450e9);
  EXPECT_NEAR(seconds(*law, {1024, 8, 2, 1, 0}, collective_coefficients()), 12 * kUs + wire + local, 1e-9);
}

TEST(CollectiveLaw, TheSwitchReducesOnlyWhatItCan) {
  const auto reduce = make_kernel_law(key_of("nccl", "all_reduce"), h100());
  const std::vector<double> large{512e6, 8, 2, 1, 0};
  const double halves = seconds(*reduce, large, collective_coefficients());
  const double integers = seconds(*reduce, {1024e6, 8, 1, 1, 0}, collective_coefficients());
  EXPECT_LT(halves, integers);  // (n+1)/n at .6 of the link against 2(n-1)/n at .8: 1.875 and 2.19
  DeviceLimits ampere = h100();
  ampere.switch_reduces = false;
  const auto without = make_kernel_law(key_of("nccl", "all_reduce"), ampere);
  EXPECT_NEAR(seconds(*without, large, collective_coefficients()), integers, 0.01 * integers);
}

TEST(CollectiveLaw, EagerCallsWaitForTheHost) {
  const auto law = make_kernel_law(key_of("custom_allreduce", "all_reduce"), h100());
  auto coefficients = collective_coefficients();
  const double replayed = seconds(*law, {64, 2, 2, 1, 0}, coefficients);
  const double eager = seconds(*law, {64, 2, 2, 1, 1}, coefficients);
  EXPECT_LT(replayed, 8 * kUs);
  EXPECT_NEAR(eager, 20 * kUs, 0.1 * kUs);
}

TEST(CollectiveLaw, BetweenNodesThePairwiseExchangeIsTheNics) {
  const auto law = make_kernel_law(key_of("nccl", "alltoall"), h100());
  const double bytes = 512e6;
  const double expected = bytes * 3 / 4 / (0.93 * 50e9);
  EXPECT_NEAR(seconds(*law, {bytes / 2, 32, 2, 4, 0}, collective_coefficients()), expected, 0.1 * expected);
}

RC_GTEST_PROP(CollectiveLaw, MoreBytesNeverTakeLessTime, ()) {
  const auto kernel = *rc::gen::element<std::string>("all_gather", "reduce_scatter", "alltoall", "all_reduce");
  const auto law = make_kernel_law(key_of("nccl", kernel), h100());
  const auto elements = *rc::gen::inRange(1, 1 << 28);
  const double ranks = 1 << *rc::gen::inRange(1, 4);
  const double small = seconds(*law, {static_cast<double>(elements), ranks, 2, 1, 0}, collective_coefficients());
  const double large = seconds(*law, {elements * 2.0, ranks, 2, 1, 0}, collective_coefficients());
  // Changing paths softly may cost what two of them differ by, never more.
  RC_ASSERT(large > small * 0.98);
}

TEST(ExpertTraffic, DistinctGroupsAgreeWithEnumeration) {
  // Every choice of 3 of 8 experts on 4 ranks of 2.
  int choices = 0;
  double reached = 0;
  for (int mask = 0; mask < 256; ++mask) {
    if (__builtin_popcount(static_cast<unsigned>(mask)) != 3) continue;
    ++choices;
    for (int rank = 0; rank < 4; ++rank) reached += (mask >> (2 * rank) & 3) != 0 ? 1 : 0;
  }
  EXPECT_NEAR(distinct_groups(4, 8, 3), reached / choices, 1e-9);
  EXPECT_EQ(distinct_groups(1, 8, 3), 1);
}

TEST(LowLatencyLaw, SaysOfEightNodesWhatTheOtherImplementationSays) {
  const auto dispatch = make_kernel_law(key_of("wideep_deepep_ll", "deepep/dispatch"), h100());
  const auto combine = make_kernel_law(key_of("wideep_deepep_ll", "deepep/combine"), h100());
  const std::vector<double> there{7.465 * kUs, 2.431 * kUs, 0.489 * kUs, 0.569,         1.21 * kUs, 0.708 * kUs,
                                  8.469e9,     0.784,       6.759 * kUs, 47.349 / 50.0, 4.945 * kUs};
  const std::vector<double> back{8.078 * kUs, 0.575 * kUs, 0.677 * kUs,  0.455,         0.741 * kUs, 1.081 * kUs,
                                 32.257e9,    0.962,       14.633 * kUs, 46.028 / 50.0, 2.054 * kUs};
  const std::vector<double> tokens{1, 16, 128, 512};
  const std::vector<double> dispatch_us{33, 48, 171, 593};
  const std::vector<double> combine_us{33, 64, 308, 1146};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::vector<double> row{tokens[i], tokens[i] * 8, 7168, 8, 256, 8};
    EXPECT_NEAR(seconds(*dispatch, row, there) / kUs, dispatch_us[i], 0.51);
    EXPECT_NEAR(seconds(*combine, row, back) / kUs, combine_us[i], 0.51);
  }
}

TEST(HighThroughputLaw, SaysOfEightNodesWhatTheOtherImplementationSays) {
  const auto law = make_kernel_law(key_of("wideep_deepep_normal", "deepep/dispatch"), h100());
  std::vector<double> coefficients(10, 1e-6);
  coefficients.insert(coefficients.end(), {25.998 * kUs, 11.103 * kUs, 0.198 * kUs, 19.342e9, 0.05 * kUs, 20.74e9,
                                           47.003 / 50.0, 4.74, 31.313 * kUs, 9.565});
  const std::vector<double> tokens{16, 128, 1024, 8192};
  const std::vector<double> expected_us{62, 153, 820, 6050};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_NEAR(seconds(*law, {tokens[i], 24, 7168, 8, 256, 8}, coefficients) / kUs, expected_us[i],
                0.01 * expected_us[i]);
  }
}

TEST(OneSidedLaw, CopiesAreWhatIsSent) {
  const auto law = make_kernel_law(key_of("nvlink_one_sided", "x/dispatch"), h100());
  const std::vector<double> coefficients{12 * kUs, 1e-9 * kUs, 0.75, 2, 1e-9, 1e-9 * kUs};
  const double wire = 1024 * 5.0 * 7168 * 2 * 7 / 8 / (0.75 * 450e9);
  EXPECT_NEAR(seconds(*law, {1024, 7168, 8, 256, 8, 2, 5}, coefficients), 12 * kUs + wire, 1e-9);
  EXPECT_NEAR(seconds(*law, {1024, 7168, 8, 256, 8, 2, 0}, coefficients), 12 * kUs + wire * 8 / 5, 1e-9);
}

TEST(CommunicationLaws, AreNotMadeUpForADeviceWithoutALink) {
  DeviceLimits none = h100();
  none.link = 0;
  std::string reason;
  EXPECT_EQ(make_kernel_law(key_of("nccl", "all_reduce"), none, &reason), nullptr);
  EXPECT_NE(reason.find("scaleup_bandwidth_per_direction"), std::string::npos);
}

}  // namespace
}  // namespace moecast
