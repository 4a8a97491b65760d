#include "hwprofiles/serving_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "hwprofiles/step_log.h"
#include "models/core/error.h"

namespace moecast {
namespace {

class Tables : public ::testing::Test {
 protected:
  std::string write(const std::string& text) {
    std::ofstream(path_) << text;
    return path_;
  }
  void TearDown() override { std::remove(path_.c_str()); }
  static std::string refusal(const auto& read) {
    try {
      read();
    } catch (const InputError& error) {
      return error.what();
    }
    return "accepted";
  }
  std::string path_ = ::testing::TempDir() + "moecast_serving_" + std::to_string(getpid()) + ".csv";
};

const std::string kSteps =
    "phase,counter_id,ctx_tokens,ctx_requests,ctx_kv_tokens,decode_tokens,mean_decode_kv_tokens,latency_ms\n";

TEST_F(Tables, StepsKnowWhenTheEngineWasIdle) {
  const auto steps =
      read_step_log(write(kSteps + "decode,7,0,0,0,3,100,5\nmixed,8,200,1,0,3,101,9\ndecode,12,0,0,0,1,5,4\n"));
  ASSERT_EQ(steps.size(), 3);
  EXPECT_TRUE(steps[0].after_idle);
  EXPECT_FALSE(steps[1].after_idle);
  EXPECT_TRUE(steps[2].after_idle);
  EXPECT_DOUBLE_EQ(steps[1].latency_s, 0.009);
}

TEST_F(Tables, BrokenStepsAreRefusedWithTheirLine) {
  const auto why = [&](const std::string& rows) { return refusal([&] { read_step_log(write(kSteps + rows)); }); };
  EXPECT_THAT(why("decode,1,0,0,0,0,0,5\n"), ::testing::HasSubstr(":2"));
  EXPECT_THAT(why("decode,1,0,0,0,3,100,5\ndecode,2,0,0,0,-3,100,5\n"), ::testing::HasSubstr(":3"));
  EXPECT_THAT(why("decode,1,0,0,0,3,100,0\n"), ::testing::HasSubstr("latency_ms"));
  EXPECT_THAT(why("decode,1,0,0,0,3,nan,5\n"), ::testing::HasSubstr("mean_decode_kv_tokens"));
  EXPECT_THAT(why("decode,1,5,0,0,3,100,5\n"), ::testing::HasSubstr("no prompt"));
  EXPECT_THAT(why("decode,1,0,0\n"), ::testing::HasSubstr("cells"));
  EXPECT_THAT(why(""), ::testing::HasSubstr("no row"));
  EXPECT_THAT(refusal([&] { read_step_log(write("phase,counter_id\n")); }), ::testing::HasSubstr("ctx_tokens"));
}

const std::string kServing =
    "backend,backend_version,model_path,system,precision,isl,osl,gemm_quant_mode,moe_quant_mode,batch_size,tp_size,"
    "pp_size,attention_dp_size,moe_tp_size,moe_ep_size,silicon_ttft_ms,silicon_tpot_ms\n";

TEST_F(Tables, ServingDefectsAreMended) {
  const ServingTable table = read_serving_table(
      write(kServing +
            // tp x ep as a product: eight devices
            "sglang,1,deepseek-ai/DeepSeek-R1,h200_sxm,fp8,1024,1024,fp8,fp8_block,4,64,1,1,8,8,100,10\n"
            // the same run again as V3
            "sglang,1,deepseek-ai/DeepSeek-V3,h200_sxm,fp8,1024,1024,fp8,fp8_block,4,64,1,1,8,8,100,10\n"
            // replicas of attention that nobody wrote
            "trtllm,1,Qwen/Qwen3,h100_sxm,fp8,1024,1024,fp8,fp8,4,1,1,,1,4,100,10\n"
            // twins that differ
            "vllm,1,a/B,h100_sxm,fp8,1024,1024,fp8,fp8,8,2,1,1,2,1,100,10\n"
            "vllm,1,a/B,h100_sxm,fp8,1024,1024,fp8,fp8,8,2,1,1,2,1,101,20\n"));
  ASSERT_EQ(table.rows.size(), 4);
  EXPECT_EQ(table.rows[0].tp, 8);
  EXPECT_EQ(table.rows[0].moe_tp, 1);
  EXPECT_EQ(table.rows[0].ep, 8);
  EXPECT_EQ(table.left_out.at("the same run under another id"), 1);
  EXPECT_EQ(table.rows[1].dp, 4);
  EXPECT_FALSE(table.rows[1].twin_differs);
  EXPECT_TRUE(table.rows[2].twin_differs);
  EXPECT_TRUE(table.rows[3].twin_differs);
}

TEST_F(Tables, TheSourceOfAServingRowSaysWhenItRanAndUnderHowMany) {
  std::string header = kServing;
  header.insert(header.find('\n'), ",silicon_data_source");
  const ServingTable table = read_serving_table(
      write(header +
            "sglang,1,deepseek-ai/V3,h200_sxm,fp8,1024,1024,fp8,fp8,32,1,1,64,8,8,100,10,"
            "file=x; silicon_concurrency=32; measured=2026-01-14T22:26:21Z; wip=False\n"
            "sglang,1,a/B,h200_sxm,fp8,1024,1024,fp8,fp8,4,8,1,1,8,1,100,11,silicon_concurrency=-3; measured=2026-1-4\n"
            "sglang,1,a/B,h200_sxm,fp8,1024,1024,fp8,fp8,8,8,1,1,8,1,100,12,measured=\n"));
  ASSERT_EQ(table.rows.size(), 3);
  EXPECT_EQ(table.rows[0].date, "2026-01-14");
  EXPECT_EQ(table.rows[0].concurrency, 32) << "not 32 x 64";
  EXPECT_EQ(table.rows[1].date, "");
  EXPECT_EQ(table.rows[1].concurrency, 4);
  EXPECT_EQ(table.rows[2].date, "");
  EXPECT_EQ(read_serving_table(write(kServing + "sglang,1,a/B,s,fp8,1,1,fp8,fp8,8,8,1,1,8,1,100,12\n")).rows[0].date,
            "");
}

TEST_F(Tables, BrokenServingRowsAreRefused) {
  const auto why = [&](const std::string& rows) {
    return refusal([&] { read_serving_table(write(kServing + rows)); });
  };
  EXPECT_THAT(why("sglang,1,m,s,fp8,0,1024,fp8,fp8,4,8,1,1,8,1,100,10\n"), ::testing::HasSubstr("isl"));
  EXPECT_THAT(why("sglang,1,m,s,fp8,1,1024,fp8,fp8,4,x,1,1,8,1,100,10\n"), ::testing::HasSubstr("tp_size"));
  EXPECT_THAT(why("sglang,1,m,s,fp8,1,1024,fp8,fp8,4,8,1,1,8,1,100,-1\n"), ::testing::HasSubstr("silicon_tpot_ms"));
}

}  // namespace
}  // namespace moecast
