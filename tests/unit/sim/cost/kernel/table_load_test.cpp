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
  EXPECT_EQ(rows(8, "0.5.14"), -1);
}

TEST(TableLoad, OtherLayoutsAreWhatTheySay) {
  RankLoadCache loads;
  KernelKey dense = key("sglang", "0.5.10");
  dense.layout = "gemm";
  EXPECT_FALSE(table_load(dense, std::vector<double>{1, 2, 3}, loads));
}

}  // namespace
}  // namespace moecast
