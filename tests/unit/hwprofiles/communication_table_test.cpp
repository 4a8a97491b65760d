#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "hwprofiles/kernel_samples.h"
#include "hwprofiles/nccl_tests.h"
#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

using testing::HasSubstr;

std::string table_file(const std::string& name, const std::string& text) {
  const std::string folder = testing::TempDir() + "moecast-communication-" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  write_file_atomically(folder + "/" + name, text);
  return folder + "/" + name;
}

double value(const KernelSamples& samples, const char* column, std::size_t row = 0) {
  return samples.columns[samples.layout().column(column)][row];
}

TEST(CommunicationTable, MessageSizesAreElements) {
  const KernelTable table =
      read_kernel_table(table_file("nccl.nccl-2.29.2.csv",
                                   "op_name,kernel_source,nccl_dtype,num_gpus,message_size,latency\n"
                                   "all_gather,NCCL,half,8,1024,0.01\nall_gather,NCCL,int8,8,1024,0.01\n"
                                   "all_gather,NCCL,weird,8,1024,0.01\n"),
                        "", "", "");
  ASSERT_EQ(table.kernels.size(), 1);
  const KernelSamples& samples = table.kernels.front();
  EXPECT_EQ(samples.key.text(), "nccl-2.29.2 nccl all_gather");
  EXPECT_EQ(samples.size(), 2);
  EXPECT_EQ(value(samples, "element_bytes", 0) + value(samples, "element_bytes", 1), 3);
  EXPECT_EQ(value(samples, "node_num"), 1);
  EXPECT_EQ(table.report.left_out.at("unknown nccl_dtype"), 1);
}

TEST(CommunicationTable, EagerAndReplayedCallsAreApart) {
  const KernelTable table =
      read_kernel_table(table_file("custom_allreduce.vllm-0.24.0.csv",
                                   "op_name,kernel_source,allreduce_dtype,num_gpus,message_size,latency,backend\n"
                                   "all_reduce,vLLM_custom_graph,bfloat16,2,128,0.004,vllm_graph\n"
                                   "all_reduce,vLLM_custom_eager,bfloat16,2,128,0.02,vllm_eager\n"),
                        "", "", "");
  ASSERT_EQ(table.kernels.size(), 1);
  EXPECT_EQ(value(table.kernels.front(), "eager", 0), 0);
  EXPECT_EQ(value(table.kernels.front(), "eager", 1), 1);
}

TEST(CommunicationTable, OneRowOfDeepEpIsADispatchAndACombine) {
  const std::string header =
      "op_name,kernel_source,node_num,hidden_size,num_token,num_topk,num_experts,combine_avg_t_us,"
      "combine_bandwidth_gbps,dispatch_avg_t_us,dispatch_bandwidth_gbps\n";
  const std::string row = "ll,deepep,4,7168,2,8,256,33,1,22,1\n";
  const KernelTable table =
      read_kernel_table(table_file("wideep_deepep_ll.sglang-0.5.12.csv", header + row), "", "", "");
  ASSERT_EQ(table.kernels.size(), 2);
  EXPECT_EQ(table.kernels[0].key.kernel, "deepep/combine");
  EXPECT_DOUBLE_EQ(table.kernels[0].latency_s[0], 33e-6);
  EXPECT_EQ(table.kernels[1].key.kernel, "deepep/dispatch");
  EXPECT_DOUBLE_EQ(table.kernels[1].latency_s[0], 22e-6);
  EXPECT_EQ(value(table.kernels[1], "sent_rows"), 16);
  const KernelTable masked =
      read_kernel_table(table_file("wideep_deepep_ll.sglang-0.5.6.post2.csv", header + row), "", "", "");
  EXPECT_NEAR(value(masked.kernels[1], "sent_rows"), 16 * std::pow(15 / 16.0, 10), 1e-12);
}

TEST(CommunicationTable, AnExchangeThatDidNotHappenIsNoMeasurement) {
  const KernelTable table = read_kernel_table(
      table_file("wideep_deepep_normal.sglang-0.5.12.csv",
                 "op_name,kernel_source,node_num,hidden_size,num_token,num_topk,num_experts,dispatch_sms,"
                 "dispatch_transmit_us,dispatch_notify_us,combine_sms,combine_transmit_us,combine_notify_us\n"
                 "normal,deepep,1,2048,1,8,128,4,27.3,0,4,29.6,0\n"),
      "", "", "");
  EXPECT_EQ(table.kernels.size(), 2);
  EXPECT_EQ(table.report.left_out.at("dispatch_notify_us not above zero"), 1);
}

TEST(CommunicationTable, OneSidedTransfersReachDistinctRanks) {
  const KernelTable table = read_kernel_table(
      table_file("nvlink_one_sided.trtllm.csv",
                 "hardware,link,implementation,model,hidden,topk,num_experts,ep_size,tokens_per_rank,op,payload_dtype,"
                 "latency_us,logical_GBps,source,licence\n"
                 "GB200,\"NVLink5, 900\",Mine,DeepSeek,7168,8,256,4,64,dispatch,nvfp4,18.9,6,somewhere,Apache\n"),
      "", "", "");
  ASSERT_EQ(table.kernels.size(), 1);
  EXPECT_EQ(table.kernels.front().key.kernel, "Mine/dispatch");
  EXPECT_EQ(value(table.kernels.front(), "copies"), 4);
  EXPECT_DOUBLE_EQ(value(table.kernels.front(), "element_bytes"), 0.5625);
}

const std::string kOutput =
    "# Collective test starting: all_gather_perf\n"
    "# nThread 1 nGpus 2 minBytes 1024 maxBytes 2048 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1 "
    "validation: "
    "1 graph: 0\n#\n# Using devices\n"
    "#  Rank  0 Group  0 Pid  37300 on   node-a device  0 [0000:05:00] NVIDIA H100\n"
    "#  Rank  1 Group  0 Pid  37301 on   node-b device  0 [0000:05:00] NVIDIA H100\n"
    "#                                                              out-of-place                       in-place\n"
    "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw "
    "#wrong\n"
    "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n"
    "        1024           256     float    none      -1    17.05    0.00    0.00      0    15.71   0.1 0.1 0\n"
    "        2048           512     float    none      -1    18.05    0.00    0.00      0    15.71   0.1 0.1 0\n"
    "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 0.1\n";

std::string problem_of(const std::string& text, NcclTestsOptions options = {"", "2.29.2", 0}) {
  try {
    read_nccl_tests(table_file("output.txt", text), options);
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was wrong";
}

TEST(NcclTests, ReadsOperationRanksHostsAndTimes) {
  const KernelTable table = read_nccl_tests(table_file("output.txt", kOutput), {"", "2.29.2", 0});
  ASSERT_EQ(table.kernels.size(), 1);
  const KernelSamples& samples = table.kernels.front();
  EXPECT_EQ(samples.key.text(), "nccl-2.29.2 nccl all_gather");
  EXPECT_EQ(value(samples, "num_gpus"), 2);
  EXPECT_EQ(value(samples, "node_num"), 2);
  EXPECT_EQ(value(samples, "eager"), 1);
  EXPECT_EQ(value(samples, "message_size"), 256);
  EXPECT_DOUBLE_EQ(samples.latency_s[0], 17.05e-6);
}

TEST(NcclTests, WrongResultsAreKeptOutAndCounted) {
  const KernelTable table = read_nccl_tests(
      table_file("output.txt", kOutput +
                                   "        4096          1024     float    none      -1    19.05    0.00    0.00 "
                                   "     3    15.71   0.1 0.1 0\n"
                                   "        8192          2048     float    none      -1    20.05    0.00    0.00 "
                                   "   N/A    15.71   0.1 0.1 0\n"),
      {"", "2.29.2", 0});
  EXPECT_EQ(table.report.rows, 4);
  EXPECT_EQ(table.report.kept, 3) << "what nobody checked is kept";
  EXPECT_EQ(table.report.left_out.at("results that are wrong (#wrong)"), 1);
}

TEST(NcclTests, KnowsTheVersionThatNcclItselfPrints) {
  const KernelTable table =
      read_nccl_tests(table_file("output.txt", "NCCL version 2.18.5+cuda12.2\n" + kOutput), {"", "", 0});
  EXPECT_EQ(table.kernels.front().key.version, "2.18.5");
}

TEST(NcclTests, AsATableItSaysToImportItFirst) {
  try {
    read_kernel_table(table_file("output.txt", kOutput), "nccl", "nccl", "2.29.2");
    FAIL() << "it was read";
  } catch (const Error& error) {
    EXPECT_THAT(error.hint(), HasSubstr("moecast import nccl-tests"));
  }
}

TEST(NcclTests, SaysWhatTheOutputLacks) {
  std::string unnamed = kOutput;
  unnamed.erase(0, unnamed.find('\n') + 1);
  EXPECT_THAT(problem_of(unnamed), HasSubstr("--operation"));
  EXPECT_EQ(problem_of(unnamed, {"all_reduce", "2.29.2", 0}), "nothing was wrong");
  EXPECT_THAT(problem_of(kOutput, {"", "", 0}), HasSubstr("--version"));
  EXPECT_THAT(problem_of(""), HasSubstr("no table"));
  EXPECT_THAT(problem_of(kOutput + "  4096  1024\n"), HasSubstr("line 14"));
  EXPECT_THAT(problem_of(kOutput + "  4096  1024 quad none -1 1 1 1 0 1 1 1 0\n"), HasSubstr("quad"));
}

}  // namespace
}  // namespace moecast
