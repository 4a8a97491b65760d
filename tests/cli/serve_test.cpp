#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/cli/made_up_profile.h"
#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

std::vector<std::string> serve(const std::vector<std::string>& more) {
  std::vector<std::string> words{"serve", "--model", "qwen3-30b-a3b", "--hw", "h200-sxm"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

Json answer(std::vector<std::string> more) {
  more.insert(more.end(), {"--format", "json"});
  const Finished finished = run_moecast(serve(more));
  EXPECT_EQ(finished.code, 0) << finished.err;
  return Json::parse(finished.out);
}

TEST(Serve, AnswersWithQuantilesThroughputAndCost_C8) {
  const Json json = answer({"--rate", "4", "--requests", "400", "--price", "3.5", "--ttft", "1s", "--tpot", "50ms"});
  EXPECT_EQ(json.at("status"), "ok");
  for (const char* name : {"ttft", "tpot", "end_to_end"}) {
    const auto at = [&](const char* which) { return json.at(std::string(name) + "_" + which + "_s").get<double>(); };
    EXPECT_GT(at("p50"), 0);
    EXPECT_LE(at("p50"), at("p90"));
    EXPECT_LE(at("p90"), at("p95"));
    EXPECT_LE(at("p95"), at("p99"));
  }
  for (const char* name : {"ttft", "tpot"}) {
    const auto at = [&](const char* which) { return json.at(std::string(name) + "_" + which + "_s").get<double>(); };
    EXPECT_LT(at("p50_low"), at("p50"));
    EXPECT_GT(at("p50_high"), at("p50"));
  }
  EXPECT_LT(json.at("saturation_low_requests_per_s"), json.at("saturation_requests_per_s"));
  EXPECT_GT(json.at("saturation_high_requests_per_s"), json.at("saturation_requests_per_s"));
  EXPECT_GT(json.at("cost_per_million_tokens"), 0);
  EXPECT_GT(json.at("goodput_ratio"), 0.9);
  EXPECT_EQ(json.at("requests"), 400);
  EXPECT_EQ(json.at("generated_tokens"), 400 * 256);
  EXPECT_EQ(json.at("prefilled_tokens"), 400 * 1024);
  EXPECT_EQ(json.at("inputs").at("prompt_tokens"), 1024);
  EXPECT_THAT(json.at("inputs").at("defaults"), testing::Contains("prompt_tokens"));
  EXPECT_THAT(json.at("warnings").dump(), HasSubstr("steps of vllm"));
}

TEST(Serve, LengthsThatVaryAreSaidAndDrawnAgain) {
  const std::vector<std::string> varied{"--concurrency", "64", "--prompt",      "128",
                                        "--output",      "64", "--range-ratio", "0.2"};
  const Json json = answer(varied);
  EXPECT_EQ(json.at("inputs").at("range_ratio"), 0.2);
  EXPECT_EQ(json.at("inputs").at("seed"), 1);
  EXPECT_EQ(answer(varied).at("tpot_mean_s"), json.at("tpot_mean_s"));
  std::vector<std::string> other = varied;
  other.insert(other.end(), {"--seed", "2"});
  EXPECT_NE(answer(other).at("tpot_mean_s"), json.at("tpot_mean_s"));
  const Json equal = answer({"--concurrency", "64", "--prompt", "128", "--output", "64"});
  EXPECT_NE(equal.at("tpot_mean_s"), json.at("tpot_mean_s"));
  EXPECT_EQ(equal.at("inputs").at("max_sequences"), 1024);
  for (const char* ratio : {"1.1", "-0.1", "nan"}) {
    EXPECT_EQ(run_moecast(serve({"--rate", "4", "--range-ratio", ratio})).code, 2) << ratio;
  }
  EXPECT_EQ(
      run_moecast(serve({"--rate", "4", "--prompt", "1000", "--range-ratio", "0.5", "--shared-prefix", "600"})).code,
      2);
}

TEST(Serve, UrgentRequestsGoFirst_D2) {
  const std::vector<std::string> busy{"--rate", "5.5", "--requests", "1000", "--max-sequences", "24"};
  const Json equal = answer(busy);
  EXPECT_TRUE(equal.at("priorities").empty());
  std::vector<std::string> more = busy;
  more.insert(more.end(), {"--urgent", "0.2"});
  const Json json = answer(more);
  ASSERT_EQ(json.at("status"), "ok") << json.at("reason");
  const Json& classes = json.at("priorities");
  ASSERT_EQ(classes.size(), 2U);
  EXPECT_EQ(classes[0].at("priority"), 1);
  EXPECT_LT(classes[0].at("ttft_p99_s"), equal.at("ttft_p99_s"));
  EXPECT_LT(classes[0].at("ttft_p99_s"), classes[1].at("ttft_p99_s"));
  EXPECT_EQ(json.at("inputs").at("urgent_ratio"), 0.2);
  const Finished wrong = run_moecast(serve({"--rate", "1", "--urgent", "1.5"}));
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("--urgent"));
}

TEST(Serve, NeverSaysALatencyBeyondSaturation) {
  const Json json = answer({"--rate", "200"});
  EXPECT_EQ(json.at("status"), "unstable");
  EXPECT_THAT(json.at("reason").get<std::string>(), HasSubstr("grows without end"));
  for (const auto& [key, value] : json.items()) {
    if (key.starts_with("ttft") || key.starts_with("tpot") || key.starts_with("end_to_end") ||
        key.starts_with("queue_wait")) {
      EXPECT_TRUE(value.is_null()) << key;
    }
  }
  EXPECT_GT(json.at("saturation_requests_per_s"), 1);
  EXPECT_LT(json.at("saturation_requests_per_s"), 200);
  EXPECT_GT(json.at("queue_growth_requests_per_s"), 1);
  EXPECT_GT(json.at("load_ratio"), 1);
  // What it serves all the same is the rate of saturation.
  EXPECT_EQ(json.at("requests_per_s"), json.at("saturation_requests_per_s"));
  EXPECT_TRUE(json.at("goodput_ratio").is_null());
}

TEST(Serve, LatenciesGrowWithTheRate) {
  const Finished finished = run_moecast(serve({"--rate", "1,5,15", "--requests", "500", "--format", "json"}));
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json json = Json::parse(finished.out);
  ASSERT_EQ(json.size(), 3);
  for (const char* key : {"ttft_p99_s", "tpot_p50_s", "output_tokens_per_gpu_s", "kv_occupancy_mean_ratio"}) {
    EXPECT_LT(json.at(0).at(key), json.at(1).at(key)) << key;
    EXPECT_LT(json.at(1).at(key), json.at(2).at(key)) << key;
  }
}

TEST(Serve, IsTheSameForASeedInEveryFormat) {
  const std::vector<std::string> load{"--rate", "5", "--requests", "200", "--seed", "7"};
  for (const char* format : {"table", "md", "csv", "json", "jsonl"}) {
    std::vector<std::string> words = load;
    words.insert(words.end(), {"--format", format});
    const Finished first = run_moecast(serve(words));
    EXPECT_EQ(first.code, 0) << first.err;
    EXPECT_EQ(first.out, run_moecast(serve(words)).out) << format;
    EXPECT_THAT(first.out, HasSubstr("7")) << format;
  }
  const std::vector<std::string> other{"--rate", "5", "--requests", "200", "--seed", "8"};
  EXPECT_NE(run_moecast(serve(load)).out, run_moecast(serve(other)).out);
}

TEST(Serve, ClientsAreNeverMoreThanSaid) {
  const Json one = answer({"--concurrency", "1", "--requests", "20"});
  const Json many = answer({"--concurrency", "16", "--requests", "200"});
  EXPECT_LE(one.at("in_flight_mean"), 1 + 1e-9);
  EXPECT_LE(many.at("in_flight_mean"), 16 + 1e-9);
  EXPECT_GT(many.at("in_flight_mean"), 12);
  EXPECT_TRUE(one.at("load_ratio").is_null());
  EXPECT_LT(one.at("tpot_p50_s"), many.at("tpot_p50_s"));
}

TEST(Serve, PrefillApartMovesTheCacheOfThePrompt) {
  const Json json = answer({"--rate", "2", "--requests", "200", "--prefill-instances", "1", "--decode-instances", "1",
                            "--kv-link", "10GB/s"});
  EXPECT_EQ(json.at("gpus"), 2);
  // 48 layers x 2 x 4 heads x 128 x 2 bytes = 98,304 bytes a token; 1,024 tokens over 10 GB/s = 10.1 ms, plus waiting.
  EXPECT_GE(json.at("kv_transfer_mean_s"), 98304 * 1024 / 10e9 - 1e-9);
  EXPECT_LT(json.at("kv_transfer_mean_s"), 2 * 98304 * 1024 / 10e9);
  const Json half = answer({"--rate", "2", "--requests", "200", "--prefill-instances", "1", "--decode-instances", "1",
                            "--kv-link", "10GB/s", "--kv-dtype", "fp8"});
  EXPECT_NEAR(half.at("kv_transfer_mean_s").get<double>() / json.at("kv_transfer_mean_s").get<double>(), 0.5, 0.02);
  const Json together = answer({"--rate", "2", "--requests", "200"});
  EXPECT_TRUE(together.at("kv_transfer_mean_s").is_null());
  EXPECT_LT(json.at("tpot_p99_s"), together.at("tpot_p99_s"));
}

TEST(Serve, StagesAndContextRanksServeToo_C1) {
  const std::vector<std::string> load{"--rate", "4", "--requests", "300", "--tp", "2"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = load;
    words.insert(words.end(), more.begin(), more.end());
    return answer(words);
  };
  const Json plain = with({});
  const Json staged = with({"--pp", "2"});
  const Json shared = with({"--cp", "2"});
  EXPECT_EQ(staged["inputs"]["pp"], 2);
  EXPECT_EQ(shared["inputs"]["cp"], 2);
  for (const Json& json : {staged, shared}) {
    EXPECT_EQ(json["status"], "ok");
    EXPECT_LE(json["tpot_p50_low_s"], json["tpot_p50_s"]);
    EXPECT_LE(json["tpot_p50_s"], json["tpot_p50_high_s"]);
  }
  // Half of the layers on each stage leave room for more.
  EXPECT_GT(staged["kv_capacity_tokens"], 1.5 * plain["kv_capacity_tokens"].get<double>());
  EXPECT_LT(staged["output_tokens_per_gpu_s"], plain["output_tokens_per_gpu_s"]);
}

TEST(Serve, RecordedArrivalsAreServed_C21) {
  const std::string folder = fresh_folder("serve-arrivals");
  write_text(folder + "/mix.csv",
             "arrival_s,prompt_tokens,output_tokens\n0,100,10\n0.1,4000,200\n0.2,100,10\n5,800,100\n");
  const Json json = answer({"--arrivals", folder + "/mix.csv"});
  EXPECT_EQ(json.at("status"), "ok");
  EXPECT_EQ(json.at("requests"), 4);
  EXPECT_EQ(json.at("measured_requests"), 4);
  EXPECT_EQ(json.at("generated_tokens"), 320);
}

TEST(Serve, HostileArrivalsAreInputErrorsWithTheirLine) {
  const std::string folder = fresh_folder("serve-hostile");
  const std::string header = "arrival_s,prompt_tokens,output_tokens\n0,10,10\n";
  for (const char* row : {"-1,10,10", "nan,10,10", "1,0,10", "1,10,0", "1,1.5,10", "1,10", "x,10,10", "1,10,1e400"}) {
    write_text(folder + "/bad.csv", header + row + "\n");
    const Finished finished = run_moecast(serve({"--arrivals", folder + "/bad.csv"}));
    EXPECT_EQ(finished.code, 3) << row;
    EXPECT_EQ(finished.out, "") << row;
    EXPECT_THAT(finished.err, HasSubstr("bad.csv:3")) << row;
    EXPECT_THAT(finished.err, HasSubstr("hint: ")) << row;
  }
  write_text(folder + "/bad.csv", header + "5,10,10\n4,10,10\n");
  EXPECT_THAT(run_moecast(serve({"--arrivals", folder + "/bad.csv"})).err, HasSubstr("sort the rows"));
  EXPECT_EQ(run_moecast(serve({"--arrivals", folder + "/none.csv"})).code, 3);
}

TEST(Serve, RefusesWhatContradictsOrMeansNothing) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong{
      {{}, "--rate: is missing"},
      {{"--rate", "1", "--concurrency", "2"}, "contradicts another load"},
      {{"--rate", "0"}, "--rate"},
      {{"--rate", "-3"}, "--rate"},
      {{"--rate", "nan"}, "--rate"},
      {{"--rate", "1", "--prompt", "0"}, "--prompt"},
      {{"--rate", "1", "--output", "0"}, "--output"},
      {{"--rate", "1", "--requests", "0"}, "--requests"},
      {{"--rate", "1", "--requests", "5", "--warmup", "5"}, "--warmup"},
      {{"--concurrency", "0"}, "--concurrency"},
      {{"--rate", "1", "--ttft", "5"}, "--ttft"},
      {{"--rate", "1", "--kv-link", "5GB/s"}, "--kv-link"},
      {{"--rate", "1", "--prefill-instances", "1"}, "--kv-link: is missing"},
      {{"--rate", "1", "--prefill-instances", "1", "--kv-link", "0B/s"}, "--kv-link"},
      {{"--rate", "1", "--memory-ratio", "2"}, "--memory-ratio"},
      {{"--rate", "1", "--ep", "4"}, "--ep"},
      {{"--rate", "1", "--pp", "0"}, "--pp"},
      {{"--rate", "1", "--pp", "4096", "--tp", "2"}, "8192 GPUs an instance"},
      {{"--rate", "1", "--cp", "2", "--ep", "4"}, "--ep"},
      {{"--rate", "1", "--shared-prefix", "5000"}, "--shared-prefix"},
      {{"--rate", "1", "--max-sequences", "0"}, "--max-sequences"},
      {{"--rate", "1", "--step-law", "none"}, "--step-law"},
      {{"--rate", "1", "--concurency", "4"}, "did you mean \"--concurrency\"?"},
  };
  for (const auto& [words, text] : wrong) {
    const Finished finished = run_moecast(serve(words));
    EXPECT_EQ(finished.code, 2) << text << finished.err;
    EXPECT_EQ(finished.out, "") << text;
    EXPECT_THAT(finished.err, HasSubstr(text));
    EXPECT_THAT(finished.err, HasSubstr("hint: "));
  }
}

TEST(Serve, ACpuHasNoServingEngine) {
  const Finished finished =
      run_moecast({"serve", "--model", "qwen3-30b-a3b", "--hw", made_up_profile("serve-cpu"), "--rate", "1"});
  EXPECT_EQ(finished.code, 2);
  EXPECT_THAT(finished.err, HasSubstr("is a CPU"));
}

TEST(Serve, WhatDoesNotFitIsAnAnswer) {
  const Finished finished =
      run_moecast({"serve", "--model", "deepseek-v3", "--hw", "h200-sxm", "--rate", "1", "--format", "json"});
  EXPECT_EQ(finished.code, 0) << finished.err;
  const Json json = Json::parse(finished.out);
  EXPECT_EQ(json.at("status"), "does_not_fit");
  EXPECT_TRUE(json.at("ttft_p50_s").is_null());
  EXPECT_TRUE(json.at("requests_per_s").is_null());
  EXPECT_GT(json.at("memory_per_rank").at("weights_bytes"), 141e9);
  // A request longer than the cache neither.
  const Json longest = answer({"--rate", "1", "--prompt", "2000000"});
  EXPECT_EQ(longest.at("status"), "does_not_fit");
  EXPECT_THAT(longest.at("reason").get<std::string>(), HasSubstr("of cache on a rank"));
}

TEST(Serve, ASmallCachePreempts_C22) {
  const Json json = answer({"--rate", "6", "--requests", "300", "--output", "1024", "--memory-ratio", "0.47"});
  EXPECT_GT(json.at("preemptions"), 0);
  EXPECT_LE(json.at("kv_occupancy_max_ratio"), 1);
  EXPECT_EQ(json.at("generated_tokens"), 300 * 1024);
  const Json shared = answer({"--rate", "4", "--requests", "300", "--shared-prefix", "1000"});
  EXPECT_GT(shared.at("cached_tokens"), 200 * 992);
}

TEST(Serve, TellsOfSequencesBeyondTheModel) {
  const Json json = answer({"--rate", "0.01", "--requests", "3", "--prompt", "100000"});
  EXPECT_EQ(json.at("status"), "outside_range");
  EXPECT_THAT(json.at("reason").get<std::string>(), HasSubstr("exceed the 40960"));
  EXPECT_EQ(answer({"--rate", "0.01", "--requests", "3", "--prompt", "100000", "--max-context", "131072"}).at("status"),
            "ok");
}

TEST(Serve, ARequestAloneTakesWhatTheServiceLawSays) {
  const Json json = answer({"--concurrency", "1", "--requests", "20"});
  const Finished law = run_moecast({"recommend", "--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--gpus", "1",
                                    "--output", "256", "--top", "1000", "--format", "json"});
  const Json deployments = Json::parse(law.out).at("deployments");
  for (const Json& deployment : deployments) {
    if (deployment.at("concurrency") != 1) continue;
    // The law takes the context halfway; everything else is the same.
    EXPECT_NEAR(json.at("tpot_p50_s"), deployment.at("tpot_s"), 0.02 * deployment.at("tpot_s").get<double>());
    EXPECT_NEAR(json.at("ttft_p50_s"), deployment.at("ttft_s"), 0.02 * deployment.at("ttft_s").get<double>());
    return;
  }
  FAIL() << law.out << law.err;
}

TEST(Serve, TheHostOfAnEngineIsASecondLawOfSteps) {
  const Json host = answer({"--concurrency", "16", "--requests", "200", "--step-law", "host"});
  const Json service = answer({"--concurrency", "16", "--requests", "200"});
  EXPECT_THAT(host.at("warnings").dump(), HasSubstr("host of vllm"));
  // Launching a prompt takes the host longer than the device.
  EXPECT_GT(host.at("tpot_p50_s"), service.at("tpot_p50_s"));
  EXPECT_LT(host.at("tpot_p50_s"), 2 * service.at("tpot_p50_s").get<double>());
}

TEST(Serve, EagerLaunchesSlowSmallStepsUnderBothLaws) {
  for (const char* law : {"service", "host"}) {
    // One client: the host takes longer to launch a step than its kernels run.
    const std::vector<std::string> alone{"--concurrency", "1", "--requests", "8", "--warmup", "2", "--step-law", law};
    std::vector<std::string> more = alone;
    more.emplace_back("--eager");
    const Json replayed = answer(alone);
    const Json eager = answer(more);
    EXPECT_GT(eager.at("tpot_p50_s").get<double>(), 2 * replayed.at("tpot_p50_s").get<double>()) << law;
    EXPECT_EQ(eager.at("inputs").at("eager"), true);
    EXPECT_FALSE(replayed.at("inputs").contains("eager"));
  }
  // A prompt of a whole step was launched eagerly in what was measured too.
  const std::vector<std::string> prompts{"--concurrency", "1",    "--requests", "8", "--warmup", "2",
                                         "--prompt",      "8192", "--output",   "1"};
  std::vector<std::string> more = prompts;
  more.emplace_back("--eager");
  EXPECT_DOUBLE_EQ(answer(more).at("ttft_p50_s").get<double>(), answer(prompts).at("ttft_p50_s").get<double>());
  more = {"--concurrency", "1", "--requests", "8", "--warmup", "2", "--eager", "--explain"};
  EXPECT_THAT(answer(more).dump(), HasSubstr("graphs that are replayed"));
}

TEST(Serve, ExplainsARequestAndWhatWouldHelp) {
  const std::vector<std::string> load{"--rate", "5", "--requests", "300", "--tp", "2", "--explain"};
  const Json json = answer(load);
  const Json& e = json.at("explanation");
  const Json& request = e.at("request");
  const double parts = request.at("queue_wait_s").get<double>() + request.at("prefill_s").get<double>() +
                       request.at("output_s").get<double>();
  EXPECT_NEAR(parts / json.at("end_to_end_mean_s").get<double>(), 1, 1e-9);
  double shortest = json.at("tpot_p50_s");
  std::string title;
  for (const Json& change : e.at("changes")) {
    if (change.at("tpot_p50_s").is_null() || change.at("tpot_p50_s") >= shortest) continue;
    shortest = change.at("tpot_p50_s");
    title = change.at("title");
  }
  EXPECT_EQ(e.at("helps_most").at("tpot"), title.empty() ? Json() : Json(title));
  // Each is what the changed question answers.
  const auto ep =
      std::ranges::find_if(e.at("changes"), [](const Json& c) { return c.at("title") == "ep 2 instead of 1"; });
  ASSERT_NE(ep, e.at("changes").end());
  EXPECT_EQ(ep->at("ttft_p50_s"),
            answer({"--rate", "5", "--requests", "300", "--tp", "2", "--ep", "2"}).at("ttft_p50_s"));
  const Finished text = run_moecast(serve(load));
  EXPECT_THAT(text.out, HasSubstr("Where a request's time goes"));
  EXPECT_THAT(text.out, HasSubstr("more requests at saturation: "));
  const Finished several = run_moecast(serve({"--rate", "1,2", "--explain"}));
  EXPECT_EQ(several.code, 2);
  EXPECT_THAT(several.err, HasSubstr("--explain: is of one load"));
}

TEST(Serve, StopsWhenInterrupted) {
  const Finished finished = run_moecast(serve({"--rate", "1", "--requests", "3000000"}), {.interrupt_after_s = 1});
  EXPECT_EQ(finished.code, 130);
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err, HasSubstr("interrupted"));
}

TEST(Serve, HelpShowsExamples) {
  const Finished help = run_moecast({"serve", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("Examples:"));
  EXPECT_THAT(run_moecast({"--help"}).out, HasSubstr("serve"));
}

}  // namespace
}  // namespace moecast::test
