#include "sim/cost/kernel/spiked_rows.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace moecast {
namespace {

/// One curve over rows; seconds as given.
KernelSamples linear_layer(const std::string& kernel, const std::vector<double>& seconds) {
  KernelSamples samples;
  samples.key = {"vllm", "0.24.0", "gemm", kernel, "fp8"};
  samples.columns.resize(samples.layout().numbers.size());
  for (std::size_t i = 0; i < seconds.size(); ++i) {
    for (std::size_t column = 0; column < samples.columns.size(); ++column) samples.columns[column].push_back(4096);
    samples.columns[samples.layout().column("m")].back() = static_cast<double>(1 << i);
  }
  samples.latency_s = seconds;
  return samples;
}

constexpr auto kSmooth = "CutlassFP8ScaledMMLinearKernel";

std::ptrdiff_t spikes(const std::vector<bool>& flags) { return std::count(flags.begin(), flags.end(), true); }

TEST(SpikedRows, AreThoseSlowerThanFewerAndMoreRows) {
  const std::vector<bool> flags = spiked_rows(linear_layer(kSmooth, {18, 18, 38, 19, 19, 20, 34, 40, 80, 160}));
  EXPECT_EQ(spikes(flags), 1);
  EXPECT_TRUE(flags[2]);
}

TEST(SpikedRows, AreNotWhatStaysSlowNorTheFirstNorOtherKernels) {
  EXPECT_EQ(spikes(spiked_rows(linear_layer(kSmooth, {18, 18, 38, 39, 39, 40}))), 0);
  EXPECT_EQ(spikes(spiked_rows(linear_layer(kSmooth, {40, 18, 18, 19, 19, 20}))), 0);
  EXPECT_EQ(spikes(spiked_rows(linear_layer("DeepGemmFp8BlockScaledMMKernel", {18, 18, 38, 19, 19, 20}))), 0);
  EXPECT_EQ(spikes(spiked_rows(linear_layer(kSmooth, {5}))), 0);
}

}  // namespace
}  // namespace moecast
