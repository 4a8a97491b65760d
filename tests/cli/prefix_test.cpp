#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

Json prefilled(const std::string& hw, const std::string& prompt, const std::string& prefix, const Words& more = {}) {
  Words words{"predict",  "--model", "olmoe-1b-7b", "--hw", hw,         "--phase", "prefill",
              "--prompt", prompt,    "--prefix",    prefix, "--format", "json"};
  words.insert(words.end(), more.begin(), more.end());
  const Finished finished = run_moecast(words);
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

double seconds_of(const Json& answer, const std::string& part) {
  double sum = 0;
  for (const Json& op : answer.at("operators")) {
    if (op.at("name").get<std::string>().find(part) != std::string::npos) sum += op.at("latency_s").get<double>();
  }
  return sum;
}

TEST(PrefixCache, HitTokensCostNoComputeButAreAttendedTo_C22) {
  const Json cold = prefilled("h200-sxm", "1024", "0");
  const Json warm = prefilled("h200-sxm", "1024", "2048");
  const Json whole = prefilled("h200-sxm", "3072", "0");
  EXPECT_EQ(warm.at("inputs").at("prefix_tokens"), 2048);
  EXPECT_EQ(warm.at("inputs").at("context_tokens"), 0) << "of sequences that decode";
  for (const char* part : {"attention.qkv", "attention.out", "experts", "router", "head"}) {
    EXPECT_EQ(seconds_of(warm, part), seconds_of(cold, part)) << part;
  }
  EXPECT_GT(seconds_of(warm, "attention.prefill"), seconds_of(cold, "attention.prefill"));
  EXPECT_LT(seconds_of(warm, "attention.prefill"), seconds_of(whole, "attention.prefill"));
  EXPECT_LT(warm.at("latency_s"), whole.at("latency_s"));
  // It is kept: a cache of 3,072 tokens either way.
  EXPECT_EQ(warm.at("memory_per_rank").at("kv_cache_bytes"), whole.at("memory_per_rank").at("kv_cache_bytes"));
}

TEST(PrefixCache, ACpuAttendsToItToo_C22) {
  const Words dtype{"--dtype", "bf16"};
  const Json cold = prefilled("amd-epyc-2cpu", "64", "0", dtype);
  const Json warm = prefilled("amd-epyc-2cpu", "64", "192", dtype);
  const Json whole = prefilled("amd-epyc-2cpu", "256", "0", dtype);
  EXPECT_GT(warm.at("flops"), cold.at("flops"));
  EXPECT_LT(warm.at("flops"), whole.at("flops"));
  EXPECT_EQ(warm.at("memory_per_rank").at("kv_cache_bytes"), whole.at("memory_per_rank").at("kv_cache_bytes"));
}

TEST(PrefixCache, AChunkBesideDecodesHasOne) {
  const auto mixed = [](const std::string& prefix) {
    const Finished finished = run_moecast({"predict", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--phase", "mixed",
                                           "--batch", "8", "--context", "1000", "--prefill-batch", "1", "--prompt",
                                           "512", "--prefix", prefix, "--format", "json"});
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  };
  const Json first = mixed("0");
  const Json later = mixed("8192");
  EXPECT_EQ(seconds_of(later, "attention.decode"), seconds_of(first, "attention.decode"));
  EXPECT_GT(seconds_of(later, "attention.prefill"), seconds_of(first, "attention.prefill"));
  // 8,192 tokens more in the cache of one sequence: 16 layers x (keys and values) x 2,048 x 2 B.
  const double more = later.at("memory_per_rank").at("kv_cache_bytes").get<double>() -
                      first.at("memory_per_rank").at("kv_cache_bytes").get<double>();
  EXPECT_DOUBLE_EQ(more, 8192.0 * 16 * 2 * 2048 * 2);
}

TEST(PrefixCache, MeansNothingInOtherPhases) {
  for (const char* phase : {"decode", "train"}) {
    const Finished refused =
        run_moecast({"predict", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--phase", phase, "--prefix", "64"});
    EXPECT_EQ(refused.code, 2) << refused.err;
    EXPECT_THAT(refused.err, HasSubstr("--prefix: means nothing in this phase"));
  }
  const Finished layer = run_moecast({"predict", "--hw", "amd-epyc-2cpu", "--hidden", "512", "--width", "512",
                                      "--experts", "8", "--top-k", "2", "--tokens", "8", "--prefix", "64"});
  EXPECT_EQ(layer.code, 2) << layer.err;
  EXPECT_THAT(layer.err, HasSubstr("--prefix: means nothing for a single layer"));
}

}  // namespace
}  // namespace moecast::test
