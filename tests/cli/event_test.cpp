#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

const std::vector<std::string> kDeepSeek{"predict", "--engine",  "event", "--model",  "deepseek-v3",
                                         "--hw",    "h200-sxm",  "--ep",  "16",       "--batch",
                                         "1024",    "--samples", "8",     "--format", "json"};

std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(EventEngineCommand, GivesADistributionOverRoutings) {
  const Finished finished = run_moecast(kDeepSeek);
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json a = Json::parse(finished.out);
  EXPECT_EQ(a.at("status"), "ok");
  const Json d = a.at("distribution");
  EXPECT_EQ(d.at("samples"), 8);
  EXPECT_LE(d.at("p50_s"), d.at("p90_s"));
  EXPECT_LE(d.at("p90_s"), d.at("p99_s"));
  EXPECT_EQ(a.at("latency_s"), d.at("mean_s"));
  EXPECT_GT(d.at("expert_balance_ratio"), 0.3);
  EXPECT_LT(d.at("expert_balance_ratio"), 1.0);
  const Json efficiency = a.at("factors").at("expert_parallel_efficiency_ratio");
  EXPECT_GT(efficiency, 0) << "one device, whether the model fits it or not";
  EXPECT_LE(efficiency, 1);
  EXPECT_NE(efficiency, d.at("expert_balance_ratio"));
  EXPECT_LE(a.at("latency_low_s"), a.at("latency_s"));
  EXPECT_GE(a.at("latency_high_s"), a.at("latency_s"));
  EXPECT_EQ(a.at("inputs").at("engine"), "event");
  EXPECT_EQ(a.at("inputs").at("cluster"), "h200-hgx-rail");
  ASSERT_GE(a.at("operators").size(), 5U);
  double sum = 0;
  for (const Json& op : a.at("operators")) sum += op.at("latency_s").get<double>();
  EXPECT_NEAR(sum / a.at("latency_s").get<double>(), 1, 0.15) << "pieces without overlap are the whole";
  EXPECT_THAT(finished.err, HasSubstr("take what the analytic engine says"));
}

TEST(EventEngineCommand, LayersAreDrawnEachByItselfSoThatNoSeedIsLucky) {
  // One popularity for all 58 layers made seeds differ by 8 %, and each of them say that it was sure to 0.3 %.
  std::vector<double> medians;
  for (const char* seed : {"1", "2", "3", "4"}) {
    const Finished finished = run_moecast(with(kDeepSeek, {"--seed", seed}));
    medians.push_back(Json::parse(finished.out).at("distribution").at("p50_s").get<double>());
  }
  EXPECT_LT(*std::ranges::max_element(medians) / *std::ranges::min_element(medians), 1.03);
}

TEST(EventEngineCommand, AnswersTheSameOnAnyNumberOfThreadsAndAnotherForAnotherSeed) {
  const std::string one = run_moecast(with(kDeepSeek, {"--jobs", "1"})).out;
  const std::string two = run_moecast(with(kDeepSeek, {"--jobs", "2"})).out;
  EXPECT_EQ(Json::parse(one).at("distribution"), Json::parse(two).at("distribution"));
  const std::string other = run_moecast(with(kDeepSeek, {"--seed", "2"})).out;
  EXPECT_NE(Json::parse(one).at("latency_s"), Json::parse(other).at("latency_s"));
}

TEST(EventEngineCommand, ALayerWithEvenRowsTakesWhatTheClosedFormSays) {
  // What all ranks gather is the same for every routing, and so are even rows of experts: nothing waits.
  const std::vector<std::string> layer{"predict", "--hidden", "2048",    "--width",  "768",  "--experts", "128",
                                       "--top-k", "8",        "--ep",    "8",        "--hw", "h100-sxm",  "--tokens",
                                       "4096",    "--load",   "uniform", "--format", "json"};
  const Json closed = Json::parse(run_moecast(layer).out);
  const Json event =
      Json::parse(run_moecast(with(layer, {"--engine", "event", "--exchange", "all-gather", "--samples", "4"})).out);
  const double seconds = closed.at("latency_s");
  EXPECT_NEAR(event.at("latency_s").get<double>() / seconds, 1, 0.003) << "rows are drawn: 0.2 % beyond the mean";
  const double moved = closed.at("factors").at("all_to_all_s");
  EXPECT_GT(moved, 0.1 * seconds);
  EXPECT_NEAR(event.at("factors").at("all_to_all_s").get<double>() / moved, 1, 1e-3);
  // Tokens are those of all ranks, however they are said to be spread.
  EXPECT_EQ(closed.at("latency_s"), Json::parse(run_moecast(with(layer, {"--dp", "8"})).out).at("latency_s"));
}

TEST(EventEngineCommand, PlacesExpertsAsRoutingDoes) {
  const auto imbalance = [](const std::vector<std::string>& more) {
    const Finished finished = run_moecast(
        with({"predict", "--engine", "event", "--model", "mixtral-8x7b", "--hw", "h100-sxm", "--ep", "4", "--batch",
              "512", "--samples", "2", "--load", "histogram:1,1,0,0,0,0,0,0", "--format", "json"},
             more));
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out).at("distribution").at("row_imbalance_ratio").get<double>();
  };
  EXPECT_NEAR(imbalance({}), 4, 1e-6) << "both experts on rank 0";
  EXPECT_NEAR(imbalance({"--placement", "round-robin"}), 2, 1e-6);
  EXPECT_NEAR(imbalance({"--placement", "node-aware"}), 4, 1e-6);
  EXPECT_NEAR(imbalance({"--placement", "map:0+1+2+3,0+1+2+3,0,1,2,3,0,1"}), 1, 0.01);
  EXPECT_NEAR(imbalance({"--placement", "balanced"}), 4.0 / 3, 1e-6) << "three copies of each: two on a rank";
  const auto refusal = [](const char* placement, const char* what) {
    const Finished finished = run_moecast(with(kDeepSeek, {"--placement", placement}));
    EXPECT_EQ(finished.code, 2);
    EXPECT_THAT(finished.err, HasSubstr("--placement"));
    EXPECT_THAT(finished.err, HasSubstr(what));
  };
  refusal("nodeaware", "did you mean \"node-aware\"?");
  refusal("servers:2", "is not known");
  refusal("map:0,1", "256");
  refusal("balanced:2", "takes no parameter");
}

TEST(EventEngineCommand, ReplicasAnswerTheSameOnAnyNumberOfThreads_D3) {
  for (const char* replicas : {"--placement=balanced", "--redundant-experts=16"}) {
    const auto answer = [&](const char* jobs) {
      return Json::parse(run_moecast(with(kDeepSeek, {replicas, "--jobs", jobs})).out).at("distribution");
    };
    const Json one = answer("1");
    for (const char* jobs : {"2", "3"}) EXPECT_EQ(answer(jobs), one) << replicas << " " << jobs;
  }
}

TEST(EventEngineCommand, SkewSlowRanksSlowLinksAndOthersTrafficSlow) {
  const auto latency = [](const std::vector<std::string>& more) {
    const Finished finished = run_moecast(with(kDeepSeek, more));
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out).at("latency_s").get<double>();
  };
  const double usual = latency({});
  // Attention, dense layers and head are part of the step, and none of it depends on the routing.
  EXPECT_GT(latency({"--load", "log-normal:1.05"}), 1.03 * latency({"--load", "uniform"}));
  EXPECT_GT(latency({"--slow-rank", "3:2"}), 1.05 * usual);
  // Half a NIC is felt where no rank is fuller than twice the mean.
  const double even = latency({"--load", "uniform"});
  EXPECT_GT(latency({"--load", "uniform", "--slow-link", "nic 0 out:0.5"}), 1.05 * even);
  EXPECT_GT(latency({"--background", "0.3"}), 1.02 * usual);
  EXPECT_GT(latency({"--background", "0.9"}), 1.1 * latency({"--background", "0.6"}));
  EXPECT_LT(latency({"--load", "log-normal:1.05", "--placement", "balanced"}), latency({"--load", "log-normal:1.05"}));
}

TEST(EventEngineCommand, AClustersLatencyHoldsEveryExchangeUp) {
  const std::string path = fresh_folder("slow-start") + "/mine.json";
  std::ofstream(path) << R"({"schema_version":1,"name":"mine","device":"h200-sxm","devices_per_node":8,"most_nodes":4,
    "scale_up":{"kind":"switch","bandwidth":null},
    "scale_out":{"kind":"rail_optimised","bandwidth":null,
                 "latency":{"value":1e-3,"unit":"s","origin":"measured","source":"ping"}}})";
  const double usual = Json::parse(run_moecast(kDeepSeek).out).at("latency_s");
  const Finished finished = run_moecast(with(kDeepSeek, {"--cluster", path}));
  ASSERT_EQ(finished.code, 0) << finished.err;
  // A dispatch and a combine of 58 layers, each of which starts within some tens of microseconds otherwise.
  EXPECT_NEAR(Json::parse(finished.out).at("latency_s").get<double>() - usual, 2 * 58 * 1e-3, 0.1 * 2 * 58 * 1e-3);
  EXPECT_THAT(finished.err, HasSubstr("an exchange starts after 1 ms"));
}

TEST(EventEngineCommand, EveryMechanismOfAScheduleChangesTheStep) {
  const std::vector<std::string> asked{"predict", "--engine",  "event",    "--model",   "mixtral-8x7b",
                                       "--hw",    "h100-sxm",  "--ep",     "8",         "--batch",
                                       "4096",    "--context", "32",       "--samples", "4",
                                       "--load",  "zipf:1",    "--format", "json"};
  const auto latency = [&](const std::vector<std::string>& more) {
    const Finished finished = run_moecast(with(asked, more));
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out).at("latency_s").get<double>();
  };
  const double usual = latency({});
  EXPECT_NE(latency({"--chunks", "2"}), usual);
  EXPECT_NE(latency({"--batches", "2"}), usual);
  EXPECT_NE(latency({"--shadow", "1"}), usual);
  EXPECT_LT(latency({"--placement", "balanced"}), usual);
  EXPECT_LT(latency({"--noise", "gaussian:4"}), usual) << "noise evens out a skewed load";
  EXPECT_NEAR(latency({"--flows", "exact"}) / usual, 1, 0.01) << "every pair by itself";
  EXPECT_NEAR(latency({"--flows", "exact", "--background", "0.3"}) / latency({"--background", "0.3"}), 1, 0.01);
  for (const char* exchange : {"direct", "pairwise", "ring"}) EXPECT_NE(latency({"--exchange", exchange}), usual);
  EXPECT_EQ(latency({"--exchange", "all-gather"}), usual) << "as engines have it";
}

TEST(EventEngineCommand, MoreShadowsThanExpertsAreWrongUsage) {
  for (const char* command : {"predict", "trace"}) {
    std::vector<std::string> words{command,   "--model", "qwen3-30b-a3b", "--hw", "h100-sxm", "--ep", "8",
                                   "--batch", "64",      "--shadow",      "129"};
    if (words.front() == "predict") words.insert(words.end(), {"--engine", "event", "--samples", "1"});
    if (words.front() == "trace") words.insert(words.end(), {"-o", fresh_folder("shadow") + "/t.json"});
    const Finished finished = run_moecast(words);
    EXPECT_EQ(finished.code, 2) << command;
    EXPECT_THAT(finished.err, HasSubstr("--shadow: 129 of 128 experts")) << command;
  }
}

TEST(EventEngineCommand, ATraceOfACpuSaysWhatItLeavesOut) {
  const std::vector<std::string> asked{"trace",
                                       "--model",
                                       "olmoe-1b-7b",
                                       "--hw",
                                       "intel-xeon-processor-2cpu",
                                       "--batch",
                                       "4",
                                       "-o",
                                       fresh_folder("cpu-trace") + "/t.json"};
  const Finished finished = run_moecast(asked);
  ASSERT_EQ(finished.code, 0) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("beyond their kernels"));
  EXPECT_EQ(run_moecast(with(asked, {"--sample", "1"})).code, 2) << "nothing is sampled";
}

TEST(EventEngineCommand, TheSameInAnotherProcess) {
  EXPECT_EQ(Json::parse(run_moecast(with(kDeepSeek, {"--background", "0.2"})).out),
            Json::parse(run_moecast(with(kDeepSeek, {"--background", "0.2"})).out));
}

const std::vector<std::string> kTraining{"--model", "olmoe-1b-7b", "--hw",    "h200-sxm", "--ep",     "8",
                                         "--phase", "train",       "--batch", "8",        "--prompt", "512"};

TEST(EventEngineCommand, ATrainingStepsCollectivesTravelOverLinks) {
  const auto answer = [](const std::vector<std::string>& more) {
    const Finished finished = run_moecast(with(with({"predict"}, kTraining), with(more, {"--format", "json"})));
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out);
  };
  const std::vector<std::string> event{"--engine", "event"};
  const double closed = answer({}).at("latency_s");
  const Json usual = answer(event);
  EXPECT_NEAR(usual.at("latency_s").get<double>() / closed, 1, 1e-3) << "nothing else runs";
  EXPECT_EQ(usual.at("inputs").at("engine"), "event");
  EXPECT_TRUE(usual.at("distribution").is_null());
  double sum = 0;
  for (const Json& phase : usual.at("training").at("phases")) sum += phase.at("latency_s").get<double>();
  EXPECT_NEAR(sum / usual.at("latency_s").get<double>(), 1, 1e-9);
  for (const std::vector<std::string>& more : std::vector<std::vector<std::string>>{
           {"--background", "0.5"}, {"--slow-link", "rank 2 port in:0.25"}, {"--slow-rank", "3:1.5"}}) {
    EXPECT_GT(answer(with(event, more)).at("latency_s"), 1.01 * closed) << more.front();
  }
  const Finished sampled = run_moecast(with(with({"predict"}, kTraining), {"--engine", "event", "--samples", "9"}));
  EXPECT_EQ(sampled.code, 2);
  EXPECT_THAT(sampled.err, HasSubstr("--samples"));
}

TEST(EventEngineCommand, ACpuAnswersWithWholeSteps) {
  const std::vector<std::string> asked{"predict",  "--hw",      "intel-xeon-processor-2cpu",
                                       "--hidden", "1024",      "--width",
                                       "2048",     "--experts", "16",
                                       "--top-k",  "2",         "--tokens",
                                       "64",       "--format",  "json"};
  const Json closed = Json::parse(run_moecast(asked).out);
  const Finished finished = run_moecast(with(asked, {"--engine", "event", "--samples", "50"}));
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json sampled = Json::parse(finished.out);
  EXPECT_NEAR(sampled.at("latency_s").get<double>() / closed.at("latency_s").get<double>(), 1, 0.05)
      << "the mean of draws is near the expectation";
  EXPECT_GT(sampled.at("distribution").at("p99_s"), sampled.at("distribution").at("p50_s"));
  for (const std::vector<std::string>& more : std::vector<std::vector<std::string>>{{"--cluster", "h100-hgx-rail"},
                                                                                    {"--background", "0.2"},
                                                                                    {"--chunks", "2"},
                                                                                    {"--shadow", "1"},
                                                                                    {"--noise", "gaussian:1"},
                                                                                    {"--kernel", "x"},
                                                                                    {"--placement", "balanced"}}) {
    const Finished refused = run_moecast(with(asked, with({"--engine", "event"}, more)));
    EXPECT_EQ(refused.code, 2);
    EXPECT_THAT(refused.err, HasSubstr(more.front() + ": means nothing on a CPU profile"));
  }
}

TEST(EventEngineCommand, RefusesWhatItCannotAnswer) {
  const auto refusal = [](std::vector<std::string> more, int code, const char* what) {
    const Finished finished = run_moecast(with(kDeepSeek, more));
    EXPECT_EQ(finished.code, code) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(what));
    EXPECT_EQ(finished.out, "");
  };
  refusal({"--cluster", "h200-hgx-rial"}, 2, "did you mean \"h200-hgx-rail\"?");
  refusal({"--dispatch", "deepep-norml"}, 2, "did you mean \"deepep-normal\"?");
  refusal({"--slow-link", "nic 0 ot:0.5"}, 2, "did you mean \"nic 0 out\"?");
  refusal({"--slow-rank", "3"}, 2, "has no factor");
  refusal({"--slow-rank", "99:2"}, 2, "99 of 16 ranks");
  refusal({"--flows", "exakt"}, 2, "did you mean \"exact\"?");
  refusal({"--noise", "gaussian"}, 2, "has no strength");
  refusal({"--noise", "gausian:1"}, 2, "did you mean \"gaussian\"?");
  refusal({"--slots", "3"}, 2, "--placement balanced");
  refusal({"--samples", "0"}, 2, "--samples");
  refusal({"--batches", "2", "--chunks", "2"}, 2, "exclude each other");
  refusal({"--without", "imbalance"}, 2, "analytic engine");
  refusal({"--moe-tp", "2"}, 2, "--moe-tp");
  const Finished many = run_moecast({"predict", "--engine", "event", "--model", "deepseek-v3", "--hw", "h200-sxm",
                                     "--ep", "64", "--batch", "1024", "--flows", "exact"});
  EXPECT_EQ(many.code, 2);
  EXPECT_THAT(many.err, HasSubstr("--flows"));
  const Finished idle = run_moecast({"predict", "--model", "olmoe-1b-7b", "--hw", "amd-epyc-2cpu", "--samples", "9"});
  EXPECT_EQ(idle.code, 2);
  EXPECT_THAT(idle.err, HasSubstr("--engine event"));
  const Finished engine = run_moecast({"predict", "--model", "olmoe-1b-7b", "--engine", "events"});
  EXPECT_EQ(engine.code, 2);
  EXPECT_THAT(engine.err, HasSubstr("did you mean \"event\"?"));
}

TEST(TraceCommand, DrawsATrainingStep) {
  const std::string path = fresh_folder("trace") + "/train.json";
  const Finished finished = run_moecast(with(with({"trace"}, kTraining), {"-o", path, "--format", "json"}));
  ASSERT_EQ(finished.code, 0) << finished.err;
  EXPECT_GT(Json::parse(finished.out).at("simulated_s"), 0);
  std::ifstream file(path);
  const Json trace = Json::parse(file);
  const auto holds = [&](const std::string& name) {
    return std::ranges::any_of(trace.at("traceEvents"), [&](const Json& event) {
      return event.at("ph") == "X" && event.at("name").get<std::string>().find(name) != std::string::npos;
    });
  };
  EXPECT_TRUE(holds("gradients.attention"));
  EXPECT_TRUE(holds(".moe.dispatch"));
  const Finished layers = run_moecast(with(with({"trace"}, kTraining), {"-o", path, "--layers", "2"}));
  EXPECT_EQ(layers.code, 2);
}

TEST(TraceCommand, RefusesWhatItCannotDraw) {
  const std::string folder = fresh_folder("trace");
  const Finished none = run_moecast({"trace", "--model", "mixtral-8x7b", "--hw", "h100-sxm", "--ep", "8"});
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.err, HasSubstr("-o"));
  const Finished range = run_moecast({"trace", "--model", "mixtral-8x7b", "--hw", "h100-sxm", "--ep", "8", "--batch",
                                      "8,64", "-o", folder + "/t.json"});
  EXPECT_EQ(range.code, 2);
  EXPECT_FALSE(std::filesystem::exists(folder + "/t.json"));
  const Finished nowhere = run_moecast({"trace", "--model", "mixtral-8x7b", "--hw", "h100-sxm", "--ep", "8", "--batch",
                                        "8", "-o", folder + "/no/such/t.json"});
  EXPECT_NE(nowhere.code, 0);
}

}  // namespace
}  // namespace moecast::test
