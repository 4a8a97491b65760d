// moecast.hpp as a program of C++17 uses it; answers are those of the command line.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <iterator>
#include <moecast.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/cli/program.h"

namespace {

using Json = nlohmann::ordered_json;
using moecast::Estimate;
using moecast::HardwareAwareMoE;
using moecast::MoeConfig;
using moecast::Predictor;

constexpr const char* kCpu = "amd-epyc-2cpu";
constexpr const char* kGpu = "h200-sxm";

MoeConfig layer(std::int64_t hidden, std::int64_t width, std::int64_t experts, std::int64_t top_k,
                std::int64_t tokens) {
  MoeConfig config;
  config.hidden = hidden;
  config.width = width;
  config.experts = experts;
  config.top_k = top_k;
  config.tokens = tokens;
  return config;
}

std::string program_says(std::vector<std::string> flags) {
  flags.insert(flags.begin(), "predict");
  flags.insert(flags.end(), {"--format", "json"});
  const moecast::test::Finished done = moecast::test::run_moecast(flags);
  EXPECT_EQ(done.code, 0) << done.err;
  return done.out;
}

double number(const Json& value) { return value.is_null() ? std::nan("") : value.get<double>(); }

void expect_same(double got, const Json& wanted, const char* name) {
  if (wanted.is_null()) {
    EXPECT_TRUE(std::isnan(got)) << name;
  } else {
    EXPECT_EQ(got, number(wanted)) << name;
  }
}

/// Every number of the estimate is the program's, to the last bit.
void expect_program(const Estimate& e, const std::vector<std::string>& flags) {
  const Json said = Json::parse(program_says(flags));
  const char* const outcomes[] = {"ok", "does_not_fit", "outside_range"};
  const char* const origins[] = {"measured", "interpolated", "fitted", "extrapolated", "datasheet", "assumed"};
  EXPECT_EQ(outcomes[e.outcome], said["status"]);
  if (e.ok()) {
    EXPECT_EQ(origins[e.origin], said["origin"]);
    EXPECT_EQ(e.bottleneck, said["bottleneck"]);
  }
  expect_same(e.latency_s, said["latency_s"], "latency_s");
  expect_same(e.latency_low_s, said["latency_low_s"], "latency_low_s");
  expect_same(e.latency_high_s, said["latency_high_s"], "latency_high_s");
  expect_same(e.confidence_ratio, said["confidence_ratio"], "confidence_ratio");
  expect_same(e.throughput_tokens_per_s, said["throughput_tokens_per_s"], "throughput_tokens_per_s");
  const Json& factors = said["factors"];
  expect_same(e.all_to_all_s, factors["all_to_all_s"], "all_to_all_s");
  expect_same(e.memory_bandwidth_s, factors["memory_bandwidth_s"], "memory_bandwidth_s");
  expect_same(e.routing_overhead_s, factors["routing_overhead_s"], "routing_overhead_s");
  expect_same(e.compute_s, factors["compute_s"], "compute_s");
  const Json& memory = said["memory_per_rank"];
  expect_same(e.weights_bytes, memory["weights_bytes"], "weights_bytes");
  expect_same(e.activations_bytes, memory["activations_bytes"], "activations_bytes");
  expect_same(e.workspace_bytes, memory["workspace_bytes"], "workspace_bytes");
  expect_same(e.memory_bytes, memory["total_bytes"], "memory_bytes");
  expect_same(e.memory_capacity_bytes, memory["capacity_bytes"], "memory_capacity_bytes");
  expect_same(e.flops, said["flops"], "flops");
  expect_same(e.total_parameters, said["parameters"]["total"], "total_parameters");
  expect_same(e.active_parameters, said["parameters"]["active"], "active_parameters");
}

TEST(CInterface, EstimatesWhatTheProgramPredicts_A24_A25) {
  const HardwareAwareMoE moe(kCpu);
  MoeConfig config = layer(1024, 2048, 16, 2, 64);
  const std::vector<std::string> plain{"--hw",      kCpu, "--hidden", "1024", "--width",  "2048",
                                       "--experts", "16", "--top-k",  "2",    "--tokens", "64"};
  expect_program(moe.estimate_latency(config), plain);
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> flags = plain;
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
  };
  config.gated = 0;
  config.activation = "gelu";
  config.shared_experts = 2;
  config.load = "dirichlet:0.5";
  config.seed = 7;
  config.copies = 3;
  expect_program(moe.estimate_latency(config), with({"--no-gated", "--activation", "gelu", "--shared-experts", "2",
                                                     "--load", "dirichlet:0.5", "--seed", "7", "--copies", "3"}));
  config = layer(1024, 2048, 16, 2, 64);
  config.capacity_factor = 1.25;
  config.pad = 1;
  config.overflow = "next-best";
  config.load = "zipf:1.1";
  config.without = MOECAST_WITHOUT_MEMORY_BANDWIDTH | MOECAST_WITHOUT_IMBALANCE;
  expect_program(moe.estimate_latency(config), with({"--capacity-factor", "1.25", "--pad", "--overflow", "next-best",
                                                     "--load", "zipf:1.1", "--without", "memory-bandwidth,imbalance"}));
  config = layer(1024, 2048, 16, 2, 64);
  const std::vector<std::int64_t> rows{64, 2, 2, 2, 2, 2, 2, 2, 40, 2, 2, 2, 1, 1, 1, 1};
  config.rows = rows.data();
  config.rows_count = rows.size();
  expect_program(moe.estimate_latency(config), with({"--rows", "64,2,2,2,2,2,2,2,40,2,2,2,1,1,1,1"}));
}

TEST(CInterface, EstimatesWithTheSettingsOfTheProgram_A24) {
  moecast::Settings settings;
  settings.backend = "openblas";
  settings.dtype = "fp32";
  settings.strategy = "per-expert-loop";
  settings.threads = 1;
  settings.data = MOECAST_SOURCE_DIR;
  const HardwareAwareMoE moe(kCpu, settings);
  expect_program(moe.estimate_latency(layer(768, 3072, 8, 1, 33)),
                 {"--hw",      kCpu,       "--hidden", "768",  "--width",    "3072",
                  "--experts", "8",        "--top-k",  "1",    "--tokens",   "33",
                  "--backend", "openblas", "--dtype",  "fp32", "--strategy", "per-expert-loop",
                  "--threads", "1"});
}

TEST(CInterface, EstimatesLayersOfGpus_A24_A25) {
  const Predictor predictor(kGpu);
  const HardwareAwareMoE moe(predictor);
  MoeConfig config = layer(2048, 768, 128, 8, 512);
  const std::vector<std::string> plain{"--hw",      kGpu,  "--hidden", "2048", "--width",  "768",
                                       "--experts", "128", "--top-k",  "8",    "--tokens", "512"};
  expect_program(moe.estimate_latency(config), plain);
  config.ep = config.dp = 8;
  std::vector<std::string> spread = plain;
  spread.insert(spread.end(), {"--ep", "8", "--dp", "8"});
  const Estimate whole = moe.estimate_latency(config);
  expect_program(whole, spread);
  EXPECT_GT(whole.all_to_all_s, 0);
  EXPECT_GT(whole.expert_parallel_efficiency_ratio, 0);
  EXPECT_LE(whole.expert_parallel_efficiency_ratio, 1);
  config.without = MOECAST_WITHOUT_EXPERT_PARALLEL_EFFICIENCY;
  EXPECT_DOUBLE_EQ(moe.estimate_latency(config).latency_s, whole.latency_s * whole.expert_parallel_efficiency_ratio);
  config.without = 0;
  config.copies = 2;
  EXPECT_THROW(static_cast<void>(moe.estimate_latency(config)), moecast::Error);
}

TEST(CInterface, AnswersQuestionsAsTheProgramDoes_A24) {
  const Predictor cpu(kCpu);
  EXPECT_EQ(cpu.predict(R"({"hidden": 512, "width": 1024, "experts": 8, "top_k": 2, "tokens": 64, "load": "zipf:1.0",)"
                        R"( "capacity_factor": 1.5, "gated": false, "without": ["imbalance", "routing-overhead"]})"),
            program_says({"--hw", kCpu, "--hidden", "512", "--width", "1024", "--experts", "8", "--top-k", "2",
                          "--tokens", "64", "--load", "zipf:1.0", "--capacity-factor", "1.5", "--no-gated", "--without",
                          "imbalance,routing-overhead"}));
  EXPECT_EQ(cpu.predict(R"({"hidden": 64, "width": 64, "experts": 3, "top_k": 1, "tokens": 9, "rows": [3, 6, 0]})"),
            program_says({"--hw", kCpu, "--hidden", "64", "--width", "64", "--experts", "3", "--top-k", "1", "--tokens",
                          "9", "--rows", "3,6,0"}));
  EXPECT_EQ(
      cpu.predict(R"({"architecture": "olmoe-1b-7b", "phase": "prefill", "prompt": 64, "prefix": 32})"),
      program_says({"--hw", kCpu, "--model", "olmoe-1b-7b", "--phase", "prefill", "--prompt", "64", "--prefix", "32"}));
  const Predictor gpu(kGpu);
  EXPECT_EQ(gpu.predict(R"({"architecture": "qwen3-30b-a3b", "batch": 32, "context": 2048, "ep": 8, "dp": 8,)"
                        R"( "eager": true, "kv_dtype": "fp8", "all_reduce": "trtllm", "tp": null})"),
            program_says({"--hw", kGpu, "--model", "qwen3-30b-a3b", "--batch", "32", "--context", "2048", "--ep", "8",
                          "--dp", "8", "--eager", "--kv-dtype", "fp8", "--all-reduce", "trtllm"}));
  EXPECT_EQ(
      gpu.predict(R"({"architecture": "deepseek-v3", "tp": 8, "draft_tokens": 1, "acceptance": 0.85, "seed": 3})"),
      program_says({"--hw", kGpu, "--model", "deepseek-v3", "--tp", "8", "--draft-tokens", "1", "--acceptance", "0.85",
                    "--seed", "3"}));
}

TEST(CInterface, TakesArchitecturesThatStandInTheQuestion_A24) {
  const std::string folder = moecast::test::fresh_folder("c-architecture");
  const std::string description =
      R"({"moecast_architecture": 1, "name": "mine", "source": "a test", "hidden": 256, "dtype": "fp32", "blocks": {"moe": )"
      R"({"type": "moe", "experts": [{"count": 4, "expert": {"width": 512}}], "router": {"top_k": 1}}}, )"
      R"("decoder": [{"blocks": ["moe"]}]})";
  moecast::test::write_text(folder + "/mine.json", description);
  const Predictor predictor(kCpu);
  const auto asked = [&](const std::string& architecture) {
    Json answer =
        Json::parse(predictor.predict(R"({"phase": "prefill", "prompt": 16, "architecture": )" + architecture + "}"));
    answer["inputs"].erase("model");
    return answer;
  };
  EXPECT_EQ(asked(description), asked('"' + folder + "/mine.json\""));
  EXPECT_EQ(asked(description)["status"], "ok");
}

TEST(CInterface, ThreadsShareAHandle_A24) {
  for (const char* hw : {kCpu, kGpu}) {
    const HardwareAwareMoE moe(hw);
    const std::string question = R"({"architecture": "qwen3-30b-a3b", "batch": 8})";
    const auto config_of = [](int i) { return layer(256 + 64 * (i % 7), 512, 8 << (i % 3), 1 + i % 2, 1 + i); };
    std::vector<double> expected;
    for (int i = 0; i < 60; ++i) expected.push_back(moe.estimate_latency(config_of(i)).latency_s);
    const std::string answer = moe.predictor().predict(question);
    const HardwareAwareMoE fresh(hw);  // whose caches are empty
    std::vector<int> wrong(8, 0);
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < wrong.size(); ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 60; ++i) {
          wrong[t] += fresh.estimate_latency(config_of(i)).latency_s != expected[static_cast<std::size_t>(i)];
          MoeConfig bad = config_of(i);
          bad.hidden = -static_cast<std::int64_t>(t);
          moecast_estimate untouched = MOECAST_ESTIMATE_INIT;
          const std::string mine = "hidden: is " + std::to_string(bad.hidden) + ",";
          wrong[t] += moecast_estimate_latency(fresh.predictor().get(), &bad, &untouched) != MOECAST_USAGE;
          wrong[t] += std::string(moecast_last_error()).rfind(mine, 0) != 0;
        }
        wrong[t] += fresh.predictor().predict(question) != answer;
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, std::vector<int>(wrong.size(), 0)) << hw;
  }
}

TEST(CInterface, ErrorsCarryTheStatusAndTheText) {
  try {
    const Predictor predictor("nowhere");
    FAIL();
  } catch (const moecast::Error& error) {
    EXPECT_EQ(error.status(), MOECAST_USAGE);
    EXPECT_STREQ(error.what(), moecast_last_error());
    EXPECT_NE(std::string(error.what()).find("\"nowhere\" is no known profile"), std::string::npos);
  }
  EXPECT_THROW(static_cast<void>(Predictor(kCpu).predict("{")), moecast::Error);
}

/// Whatever stands in a question: an answer, or an error that blames the question.
TEST(CInterface, SurvivesQuestionsWithNoise) {
  const std::vector<std::string> questions{
      R"({"hidden": 64, "width": 96, "experts": 4, "top_k": 2, "tokens": 8, "load": "zipf:1.0", "capacity_factor": 1.5})",
      R"({"architecture": "olmoe-1b-7b", "batch": 4, "context": 128, "tp": 2, "without": ["all-to-all"], "seed": 3})",
      R"({"hidden": 64, "width": 64, "experts": 3, "top_k": 1, "rows": [3, 6, 0], "gated": false, "ep": 1, "pad": true})",
      R"({"architecture": {"moecast_architecture": 1, "name": "m", "source": "a", "hidden": 8, "decoder": []}})"};
  const std::string letters = "0123456789-+.eE\"\\{}[]:,xn \x01\xff";
  std::mt19937 random(1);
  const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
  const Predictor predictors[] = {Predictor(kCpu), Predictor(kGpu)};
  for (int i = 0; i < 4000; ++i) {
    std::string question = questions[below(questions.size())];
    for (std::size_t changes = 1 + below(3); changes > 0; --changes) {
      const std::size_t at = below(question.size());
      switch (below(3)) {
        case 0: question[at] = letters[below(letters.size())]; break;
        case 1: question.insert(at, 1, letters[below(letters.size())]); break;
        default: question.erase(at, 1 + below(3));
      }
    }
    char* answer = nullptr;
    const moecast_status status = moecast_predict(predictors[below(2)].get(), question.c_str(), &answer);
    EXPECT_TRUE(status == MOECAST_OK || status == MOECAST_USAGE || status == MOECAST_INPUT)
        << status << " " << moecast_last_error() << "\n"
        << question;
    EXPECT_EQ(answer != nullptr, status == MOECAST_OK);
    moecast_free(answer);
  }
}

/// Whatever stands in a struct, its size and pointers being right.
TEST(CInterface, SurvivesLayersWithNoise) {
  std::mt19937_64 random(1);
  const auto one_of = [&](const auto& values) {
    return values[std::uniform_int_distribution<std::size_t>(0, std::size(values) - 1)(random)];
  };
  const std::int64_t sizes[] = {INT64_MIN, -1, 0, 1, 2, 3, 8, 64, 1000, 1 << 24, (1 << 24) + 1, INT64_MAX};
  const std::int64_t counts[] = {0, 1, 2, 7, 8, 64, 256, 65537};
  const std::int32_t ranks[] = {INT32_MIN, 0, 1, 1, 1, 2, 3, 8, 4096, 4097, INT32_MAX};
  const std::int32_t flags[] = {-1, 0, 0, 1, 1, 2};
  const double factors[] = {0, 0, 1, 1.25, 1e-6, 1e6, -1, 1e300, HUGE_VAL, std::nan("")};
  const char* const words[] = {nullptr, nullptr, "", "gelu", "drop", "zipf:1.0", "uniform", "histogram:1,2,3", "\xff"};
  const Predictor predictors[] = {Predictor(kCpu), Predictor(kGpu)};
  int answered = 0;
  for (int i = 0; i < 6000; ++i) {
    MoeConfig c = layer(64, 128, 8, 2, 16);
    for (int changes = 0; changes < 4; ++changes) {
      switch (std::uniform_int_distribution<int>(0, 16)(random)) {
        case 0: c.hidden = one_of(sizes); break;
        case 1: c.width = one_of(sizes); break;
        case 2: c.experts = one_of(counts); break;
        case 3: c.top_k = one_of(counts); break;
        case 4: c.tokens = one_of(sizes); break;
        case 5: c.shared_experts = one_of(counts); break;
        case 6: c.gated = one_of(flags); break;
        case 7: c.pad = one_of(flags); break;
        case 8: c.capacity_factor = one_of(factors); break;
        case 9: c.activation = one_of(words); break;
        case 10: c.overflow = one_of(words); break;
        case 11: c.load = one_of(words); break;
        case 12: c.copies = one_of(sizes); break;
        case 13: c.tp = one_of(ranks); break;
        case 14: c.ep = one_of(ranks); break;
        case 15: c.dp = one_of(ranks); break;
        default: c.moe_tp = one_of(ranks); break;
      }
    }
    c.without = std::uniform_int_distribution<std::uint32_t>(0, 31)(random);
    Estimate e;
    const moecast_status status = moecast_estimate_latency(predictors[i % 2].get(), &c, &e);
    ASSERT_TRUE(status == MOECAST_OK || status == MOECAST_USAGE || status == MOECAST_INPUT)
        << i << ": " << status << " " << moecast_last_error();
    if (status != MOECAST_OK) continue;
    answered += e.ok();
    EXPECT_EQ(std::isfinite(e.latency_s), e.ok()) << i;
    EXPECT_EQ(e.reason[0] == '\0', e.ok()) << i;
  }
  EXPECT_GT(answered, 300);
}

/// A program that was compiled with the first header asks a library that has grown, and memory behind it stays.
TEST(CInterface, WritesNoMoreThanTheCallerKnows) {
  const Predictor predictor(kCpu);
  const MoeConfig config = layer(512, 1024, 8, 2, 64);
  struct {
    moecast_estimate estimate = MOECAST_ESTIMATE_INIT;
    double behind = 7;
  } room;
  ASSERT_EQ(moecast_estimate_latency(predictor.get(), &config, &room.estimate), MOECAST_OK);
  EXPECT_EQ(room.behind, 7);
  EXPECT_EQ(room.estimate.struct_size, sizeof(moecast_estimate));
  const double first = room.estimate.latency_s;
  ASSERT_EQ(moecast_estimate_latency(predictor.get(), &config, &room.estimate), MOECAST_OK);
  EXPECT_EQ(room.estimate.latency_s, first);
}

}  // namespace
