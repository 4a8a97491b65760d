// What ranks of published tables really did.
#include "sim/cost/kernel/table_load.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "hwprofiles/kernel_layout.h"

namespace moecast {
namespace {

std::vector<double> row_of(double tokens, double hidden, double width, double top_k, double experts, double ranks,
                           double alpha) {
  const KernelLayout& layout = *find_kernel_layout("moe");
  std::vector<double> row(layout.numbers.size(), 1);
  const auto set = [&](std::string_view name, double value) { row[layout.column(name)] = value; };
  set("num_tokens", tokens);
  set("hidden_size", hidden);
  set("inter_size", width);
  set("topk", top_k);
  set("num_experts", experts);
  set("moe_ep_size", ranks);
  set(kDistributionColumn, alpha);
  return row;
}

KernelKey key(const std::string& framework, const std::string& version, const std::string& kernel = "some_moe") {
  KernelKey key;
  key.layout = "moe";
  key.framework = framework;
  key.version = version;
  key.kernel = kernel;
  key.dtype = "fp8_block";
  return key;
}

TEST(TableLoad, DeepSeeksRowsWereRoutedByGroups) {
  RankLoadCache loads;
  const auto balanced = row_of(8192, 7168, 2048, 8, 256, 8, 0);
  for (const char* framework : {"vllm", "sglang"}) {
    const auto load = table_load(key(framework, "1"), balanced, loads);
    ASSERT_TRUE(load) << framework;
    EXPECT_NEAR(load->rows, 8192 * 8 * 0.625, 1e-6);
    EXPECT_GT(table_load(key(framework, "1"), row_of(8192, 7168, 2048, 8, 256, 8, 1.01), loads)->rows,
              loads(8192, 8, 256, 8, 1.01).rows);
    EXPECT_FALSE(table_load(key(framework, "1"), row_of(8192, 7168, 2048, 8, 384, 8, 0), loads)) << "another model";
  }
  EXPECT_FALSE(table_load(key("trtllm", "1"), balanced, loads)) << "is given the experts";
  EXPECT_FALSE(table_load(key("vllm", "0.14.0", "vllm_fused_moe"), balanced, loads)) << "so was this one";
  EXPECT_TRUE(table_load(key("trtllm", "1", "moe_torch_flow_min_latency"), balanced, loads));
  EXPECT_TRUE(table_load(key("trtllm", "1", "moe_torch_flow_min_latency"), row_of(64, 2048, 512, 8, 128, 4, 0), loads))
      << "routes every model so";
}

TEST(TableLoad, OneVersionComputesWholeTokens) {
  RankLoadCache loads;
  const auto rows = [&](double ranks, const char* version) {
    const auto load = table_load(key("sglang", version), row_of(1024, 4096, 1536, 8, 128, ranks, 0), loads);
    return load ? load->rows : -1;
  };
  EXPECT_NEAR(rows(8, "0.5.10"), 8192, 1e-9);
  EXPECT_NEAR(rows(32, "0.5.10"), 2048, 1e-9);
  EXPECT_EQ(rows(1, "0.5.10"), -1) << "a rank has all of them anyway";
  EXPECT_EQ(rows(8, "0.5.14"), -1) << "of another kernel";
}

TEST(TableLoad, ALaterVersionComputesWholeTokensOfFewExperts) {
  RankLoadCache loads;
  const auto rows = [&](double top_k, double experts) {
    const auto load = table_load(key("sglang", "0.5.14", "sglang_fused_moe_triton"),
                                 row_of(16'384, 4096, 14'336, top_k, experts, 2, 0), loads);
    return load ? load->rows : -1;
  };
  EXPECT_NEAR(rows(2, 8), 2 * 16'384, 1e-9) << "two ranks take as long as one";
  EXPECT_NEAR(rows(8, 128), 8 * 16'384, 1e-9);
  EXPECT_EQ(rows(8, 256), -1);
  EXPECT_EQ(rows(1, 16), -1);
}

TEST(TableLoad, AKernelOfFewTokensRunsOneOfEightExperts) {
  RankLoadCache loads;
  const KernelKey few = key("trtllm", "1.3.0", "moe_torch_flow_min_latency");
  for (const double ranks : {1.0, 8.0}) {
    const auto load = table_load(few, row_of(64, 4096, 14'336, 2, 8, ranks, 0), loads);
    ASSERT_TRUE(load);
    EXPECT_EQ(load->rows, 64);
    EXPECT_EQ(load->distinct, 1);
  }
}

TEST(TableLoad, NumbersAbove256WereRoundedToBf16) {
  RankLoadCache loads;
  const auto distinct = [&](double tokens, double top_k, double experts, double ranks = 1) {
    const auto load = table_load(key("vllm", "0.24.0"), row_of(tokens, 4096, 1024, top_k, experts, ranks, 0), loads);
    return load ? load->distinct : -1;
  };
  // As many as the time of B200's rows says (bytes at the bandwidth of other rows): 360, 282, 297, 256.
  EXPECT_EQ(distinct(48, 10, 512), 361);
  EXPECT_EQ(distinct(32, 10, 512), 286);
  EXPECT_EQ(distinct(16, 22, 512), 300);
  EXPECT_EQ(distinct(48, 6, 384), 256);
  EXPECT_EQ(distinct(52, 10, 512), -1) << "a stride and more: exact";
  EXPECT_EQ(distinct(48, 10, 512, 2), -1);
  EXPECT_EQ(distinct(16, 8, 160), -1) << "bf16 has all numbers up to 256";
}

TEST(TableLoad, UniformRowsBehindADispatchComeInBlocks) {
  RankLoadCache loads;
  const KernelLayout& layout = *find_kernel_layout("wideep_context_moe");
  std::vector<double> row(layout.numbers.size(), 1);
  for (const auto& [name, value] :
       {std::pair{"num_tokens", 512.0}, {"topk", 8.0}, {"num_experts", 256.0}, {"moe_ep_size", 2.0}}) {
    row[layout.column(name)] = value;
  }
  row[layout.column(kDistributionColumn)] = 0;
  KernelKey behind = key("sglang", "0.5.10");
  behind.layout = "wideep_context_moe";
  const auto load = table_load(behind, row, loads);
  ASSERT_TRUE(load);
  EXPECT_EQ(load->rows, 2048);
  EXPECT_EQ(load->distinct, 16);
  row[layout.column(kDistributionColumn)] = 1.01;
  EXPECT_FALSE(table_load(behind, row, loads));
}

TEST(TableLoad, OtherLayoutsAreWhatTheySay) {
  RankLoadCache loads;
  KernelKey dense = key("sglang", "0.5.10");
  dense.layout = "gemm";
  EXPECT_FALSE(table_load(dense, std::vector<double>{1, 2, 3}, loads));
}

}  // namespace
}  // namespace moecast
