#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "hwprofiles/kernel_samples.h"
#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

using testing::HasSubstr;

constexpr const char* kHeader =
    "kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,distribution,"
    "latency\n";

std::string table_file(const std::string& name, const std::string& text) {
  const std::string folder = testing::TempDir() + "moecast-tables-" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  write_file_atomically(folder + "/" + name, text);
  return folder + "/" + name;
}

KernelTable read(const std::string& rows, const std::string& header = kHeader) {
  return read_kernel_table(table_file("moe.vllm-0.24.0.csv.gz", header + rows), "", "", "");
}

std::string problem_of(const std::string& rows, const std::string& header = kHeader) {
  try {
    read(rows, header);
  } catch (const InputError& error) {
    return error.what();
  }
  return "nothing was wrong";
}

TEST(KernelTable, ReadsNameLayoutAndUnits) {
  const KernelTable table = read("triton,bfloat16,8,4096,14336,2,8,1,1,power_law_1.2,0.5\n");
  ASSERT_EQ(table.kernels.size(), 1);
  const KernelSamples& samples = table.kernels.front();
  EXPECT_EQ(samples.key.text(), "vllm-0.24.0 moe triton bfloat16");
  EXPECT_DOUBLE_EQ(samples.latency_s.front(), 0.5e-3);  // tables hold milliseconds
  const KernelLayout& layout = samples.layout();
  EXPECT_DOUBLE_EQ(samples.columns[layout.column("distribution")][0], 1.2);
  EXPECT_DOUBLE_EQ(samples.columns[layout.column("expert_matrices")][0], 3);
}

TEST(KernelTable, ExpertsOfTheNemotronFamilyHaveTwoMatrices) {
  EXPECT_EQ(matrices_of("vllm", "triton", 2688, 22), 2);
  EXPECT_EQ(matrices_of("trtllm", "moe_torch_flow_nongated", 1024, 8), 2);
  EXPECT_EQ(matrices_of("sglang", "sglang_fused_moe_triton", 2688, 22), 3);
  EXPECT_EQ(matrices_of("sglang", "sglang_flashinfer_trtllm_moe", 2688, 22), 2);
  EXPECT_EQ(matrices_of("vllm", "vllm_fused_moe", 2688, 22), 3);
  EXPECT_EQ(matrices_of("vllm", "triton", 2048, 8), 3);
}

TEST(KernelTable, CountsWhatItLeavesOut) {
  const KernelTable table = read(
      "triton,bfloat16,8,4096,14336,2,8,1,1,balanced,0.5\n"
      "triton,bfloat16,8,4096,14336,2,8,1,1,balanced,0.9\n"
      "triton,bfloat16,16,4096,14336,2,8,1,1,balanced,0\n"
      "triton,bfloat16,16,4096,14336,2,8,1,1,balanced,-1\n"
      "triton,bfloat16,16,4096,14336,9,8,1,1,balanced,0.5\n"
      "triton,bfloat16,16,4096,14336,2,8,1,3,balanced,0.5\n"
      "triton,bfloat16,0,4096,14336,2,8,1,1,balanced,0.5\n"
      "triton,bfloat16,16,4096,14336,2,8,1,1,sorted,0.5\n");
  EXPECT_EQ(table.report.rows, 8);
  EXPECT_EQ(table.report.kept, 1);
  EXPECT_EQ(table.report.duplicates, 1);
  EXPECT_EQ(table.report.disagreeing, 1);
  EXPECT_DOUBLE_EQ(table.kernels.front().latency_s.front(), 0.9e-3);  // the later row counts
  std::int64_t left_out = 0;
  for (const auto& [reason, count] : table.report.left_out) left_out += count;
  EXPECT_EQ(left_out, 6);
  EXPECT_EQ(table.report.left_out.at("latency not above zero"), 2);
  EXPECT_THAT(table.report.examples.at("latency not above zero"), HasSubstr("line 4"));
}

TEST(KernelTable, BrokenFilesNameLineAndColumn) {
  EXPECT_THAT(problem_of("", "kernel_source,moe_dtype,latency\n"), HasSubstr("has no column \"num_tokens\""));
  EXPECT_THAT(problem_of("triton,bfloat16,8,4096,14336,2,8,1,1,balanced\n"), HasSubstr("line 2"));
  EXPECT_THAT(problem_of("triton,bfloat16,eight,4096,14336,2,8,1,1,balanced,0.5\n"), HasSubstr("column num_tokens"));
  EXPECT_THAT(problem_of("triton,bfloat16,8,4096,14336,2,8,1,1,balanced,fast\n"), HasSubstr("column latency"));
  EXPECT_THAT(problem_of("", ""), HasSubstr("is empty"));
  EXPECT_THROW(read_kernel_table("/nowhere/moe.vllm-0.24.0.csv", "", "", ""), InputError);
}

TEST(KernelTable, RefusesMoreRowsThanAskedFor) {
  std::string rows;
  for (int t = 1; t <= 5; ++t) rows += "triton,bfloat16," + std::to_string(t) + ",64,64,2,8,1,1,balanced,0.5\n";
  const std::string file = table_file("moe.vllm-0.24.0.csv", kHeader + rows);
  EXPECT_EQ(read_kernel_table(file, "", "", "", 5).report.kept, 5);
  EXPECT_THROW(read_kernel_table(file, "", "", "", 4), InputError);
}

TEST(KernelTable, FindsTheLayoutByItsColumns) {
  const std::string file = table_file("unnamed.csv", "kernel_source,gemm_dtype,m,n,k,latency\ncublas,fp8,1,2,3,0.1\n");
  const KernelTable table = read_kernel_table(file, "", "vllm", "1");
  EXPECT_EQ(table.kernels.front().key.layout, "gemm");
  EXPECT_THROW(read_kernel_table(file, "gem", "vllm", "1"), InputError);
}

TEST(KernelTable, TellsAStepFromAPromptByItsFirstRow) {
  const std::string header =
      "kernel_source,batch_size,isl,num_heads,num_key_value_heads,head_dim,beam_width,attn_dtype,kv_cache_dtype,step,"
      "latency"
      "\n";
  const auto layout_of = [&](const std::string& row) {
    const std::string file = table_file("unnamed.csv", header + row);
    return read_kernel_table(file, "", "vllm", "1").kernels.front().key.layout;
  };
  EXPECT_EQ(layout_of("fa3,4,1,32,8,128,1,bfloat16,fp8,1023,0.1\n"), "generation_attention");
  EXPECT_EQ(layout_of("fa3,4,1024,32,8,128,1,bfloat16,fp8,0,0.1\n"), "context_attention");
}

TEST(KernelTable, TimesOfActivatedExpertsAreMicroseconds) {
  const std::string file = table_file("moe_activated_experts.x.csv", "tokens,activated_experts,time_us\n1,8,50.2297\n");
  EXPECT_NEAR(read_kernel_table(file, "", "", "").kernels.front().latency_s.front(), 50.2297e-6, 1e-12);
}

TEST(KernelCurves, ReturnWithinHalfAStep) {
  std::string rows;
  for (const int tokens : {1, 2, 16, 256}) {
    for (const char* load : {"balanced", "power_law_1.01"}) {
      rows += "a,fp8," + std::to_string(tokens) + ",4096,1536,8,128,2,4," + load + "," + std::to_string(0.1 * tokens) +
              "\n";
    }
  }
  const KernelTable table = read(rows);
  const std::string text = curves_text(table.kernels);
  const auto again = parse_curves_text(text, "curves", {"moe", "vllm", "0.24.0"});
  ASSERT_EQ(again.size(), 1);
  EXPECT_EQ(again[0].key, table.kernels[0].key);
  EXPECT_EQ(again[0].columns, table.kernels[0].columns);
  for (std::size_t i = 0; i < again[0].size(); ++i) {
    EXPECT_NEAR(std::log(again[0].latency_s[i] / table.kernels[0].latency_s[i]), 0, 2.5e-4 + 1e-9);
  }
  EXPECT_EQ(curves_text(again), text);
}

TEST(KernelCurves, BrokenOnesNameLineAndColumn) {
  const TableName name{"gemm", "vllm", "1"};
  const std::string header = "kernel,dtype,n,k,m,ln_latency_steps\n";
  EXPECT_NO_THROW(parse_curves_text(header + "a,fp8,64,64,1 2,-20000 10\n", "c", name));
  for (const char* row : {"a,fp8,64,64,1 2,-20000\n", "a,fp8,64,64,1 x,-20000 10\n", "a,fp8,64,64,1,-20000.5\n",
                          "a,fp8,-1,64,1,-20000\n", "a,fp8,64,64,1\n", "a,fp8,64,64,1,999999999999\n"}) {
    EXPECT_THROW(parse_curves_text(header + row, "c", name), InputError) << row;
  }
  EXPECT_THROW(parse_curves_text("kernel\n", "c", name), InputError);
}

TEST(TableNames, SayLayoutFrameworkAndVersion) {
  const TableName name = parse_table_name("/x/moe.sglang-0.5.6.post2.csv.gz");
  EXPECT_EQ(name.layout, "moe");
  EXPECT_EQ(name.framework, "sglang");
  EXPECT_EQ(name.version, "0.5.6.post2");
  EXPECT_EQ(parse_table_name("mine.csv").layout, "");
}

}  // namespace
}  // namespace moecast
