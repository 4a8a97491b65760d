#include "hwprofiles/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/cli/made_up_profile.h"
#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

const std::vector<std::string> kSmall{"profile", "--budget", "40s",       "--backend", "onednn",
                                      "--dtype", "fp32",     "--threads", "1",         "--out"};

std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(Profile, MeasuresCalibratesPredictsAndValidates_D6) {
  const std::string folder = fresh_folder("profile_whole") + "/me";
  const Finished profiled = run_moecast(with(kSmall, {folder, "--format", "json"}));
  if (profiled.code == 2 && profiled.err.find("the fewest points of") != std::string::npos) {
    GTEST_SKIP() << "the machine is too busy to be measured in 40 s, and the program said so: " << profiled.err;
  }
  ASSERT_EQ(profiled.code, 0) << profiled.err;
  double timed_s = 0;
  for (const Measurement& point : read_samples(folder)) {
    for (const RawSample& sample : point.raw) timed_s += sample.calls * sample.wall_s;
  }
  EXPECT_GT(timed_s, 0);
  EXPECT_LE(timed_s, 40) << "all that was timed, within the budget";
  const Json said = Json::parse(profiled.out);
  EXPECT_TRUE(said.at("complete"));
  EXPECT_GT(said.at("points").get<int>(), 50);
  EXPECT_FALSE(std::filesystem::exists(folder + ".partial"));
  EXPECT_GT(said.at("grouped").at(0).at("points").get<int>(), 0);
  const Json machine = Json::parse(read_whole(folder + "/profile.json"));
  for (const char* name : {"read_bandwidth_L1_1_threads", "read_bandwidth_memory_1_threads",
                           "copy_bandwidth_L2_1_threads", "call_overhead_onednn_fp32_1_threads"}) {
    EXPECT_TRUE(machine.at("quantities").contains(name)) << name;
  }

  const std::string calibration = read_whole(folder + "/calibration.json");
  // Layers are what a busy machine gives up first; the profile then says so.
  if (said.at("notes").dump().find("are left out") == std::string::npos) {
    EXPECT_GT(Json::parse(calibration).at("closures").size(), 0U);
  }
  std::filesystem::remove(folder + "/calibration.json");
  const Finished again = run_moecast({"calibrate", folder, "--format", "json"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(read_whole(folder + "/calibration.json"), calibration) << "reproducible byte for byte";
  EXPECT_EQ(Json::parse(again.out).at(0).at("points"), said.at("gemms").at(0).at("points"));

  const Finished predicted =
      run_moecast({"predict", "--hw", folder, "--hidden", "512", "--width", "1024", "--experts", "8", "--top-k", "2",
                   "--tokens", "64", "--dtype", "fp32", "--threads", "1", "--format", "json"});
  ASSERT_EQ(predicted.code, 0) << predicted.err;
  ASSERT_EQ(Json::parse(predicted.out).at("status"), "ok") << predicted.out << profiled.err;
  EXPECT_GT(Json::parse(predicted.out).at("latency_s").get<double>(), 0);

  const Finished validated = run_moecast(
      {"validate", "--hw", folder, "--cases", "3", "--rounds", "2", "--timing", "stored", "--format", "json"});
  ASSERT_TRUE(validated.code == 0 || validated.code == 1) << validated.err;
  const Json report = Json::parse(validated.out);
  ASSERT_EQ(report.at("cases").size(), 3U);
  EXPECT_EQ(report.at("strata").back().at("name"), "all");
  for (const char* key :
       {"n", "median_ape", "mape", "p90_ape", "within_10_ratio", "kendall_tau", "coverage_90_ratio", "baselines"}) {
    EXPECT_TRUE(report.at("strata").back().contains(key)) << key;
  }

  // The toy of three small networks, whose calls take longer than their arithmetic.
  const Finished toy = run_moecast({"validate", "--hw", folder, "--model", "tiny-mlp-moe", "--tokens", "256,1024",
                                    "--timing", "stored", "--format", "json"});
  ASSERT_TRUE(toy.code == 0 || toy.code == 1) << toy.err;
  const Json all = Json::parse(toy.out).at("strata").back();
  EXPECT_EQ(all.at("n"), 2);
  const Json noise = all.at("noise_mape");
  if (noise.is_null() || noise > 0.1) GTEST_SKIP() << "too noisy to judge the toy: " << noise;
  const std::string notes = said.at("notes").dump();
  if (notes.find("noisy") != std::string::npos || notes.find("are left out") != std::string::npos) {
    GTEST_SKIP() << "the profile itself says that it is too noisy or too short to judge the toy: " << notes;
  }
  EXPECT_LT(all.at("median_ape").get<double>(), 0.2);
}

TEST(Profile, RefusesWhatOnlyAModelHas) {
  const Finished refused = run_moecast({"validate", "--hw", "intel-xeon-processor-2cpu", "--tokens", "4"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--tokens: means nothing without --model"));
}

TEST(Profile, InterruptedKeepsWhatItHasAndGoesOn) {
  const std::string folder = fresh_folder("profile_stopped") + "/me";
  ProgramOptions stop;
  stop.interrupt_when = "spread";
  stop.interrupt_after_s = 3.0;
  std::vector<std::string> asked = kSmall;
  asked.push_back(folder);
  const Finished stopped = run_moecast(asked, stop);
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("the same command goes on"));
  ASSERT_TRUE(std::filesystem::exists(folder + ".partial/profile.json"));
  EXPECT_FALSE(std::filesystem::exists(folder));

  asked.insert(asked.end(), {"--format", "json"});
  const Finished resumed = run_moecast(asked);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_GT(Json::parse(resumed.out).at("resumed_points").get<int>(), 0);
  EXPECT_TRUE(std::filesystem::exists(folder + "/calibration.json"));
}

TEST(Profile, RefusesWhatItCannotDo) {
  EXPECT_EQ(run_moecast({"profile", "--budget", "90"}).code, 2);
  EXPECT_EQ(run_moecast({"profile", "--budget", "1s"}).code, 2);
  const Finished typo = run_moecast({"profile", "--backend", "onednm"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_THAT(typo.err, HasSubstr("onednn"));
  const Finished threads = run_moecast({"profile", "--threads", "4000"});
  EXPECT_EQ(threads.code, 2);
  EXPECT_EQ(run_moecast({"validate", "--hw", "/nowhere"}).code, 3);
  EXPECT_EQ(run_moecast({"validate", "--timing", "later"}).code, 2);
}

TEST(Profile, RefusesABudgetTooShortForAllThatIsAsked) {
  const std::string folder = fresh_folder("profile_short") + "/me";
  const Finished refused = run_moecast({"profile", "--budget", "5s", "--threads", "1,2", "--out", folder});
  EXPECT_EQ(refused.code, 2) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr("the fewest points of"));
  EXPECT_THAT(refused.err, HasSubstr("give more time, or name fewer with --backend"));
  EXPECT_FALSE(std::filesystem::exists(folder));
}

/// The check of `doctor` that says what is missing for a GPU; null where one answers.
Json missing_gpu() {
  for (const Json& check : Json::parse(run_moecast({"doctor", "--format", "json"}).out)) {
    if (check.at("name") == "gpu" && check.at("status") == "missing") return check;
  }
  return nullptr;
}

TEST(Profile, WithoutAGpuSaysWhatIsMissingAsDoctorDoes) {
  const Json missing = missing_gpu();
  if (missing.is_null()) GTEST_SKIP() << "a GPU answers here";
  const std::string folder = fresh_folder("profile_gpu") + "/gpu";
  const Finished refused = run_moecast({"profile", "--device", "cuda", "--out", folder});
  EXPECT_EQ(refused.code, 4);
  EXPECT_EQ(refused.out, "");
  EXPECT_THAT(refused.err, HasSubstr(missing.at("found").get<std::string>()));
  const auto advice = missing.at("advice").get<std::string>();
  EXPECT_THAT(refused.err, HasSubstr(advice.substr(0, advice.find(" (only"))));
  EXPECT_FALSE(std::filesystem::exists(folder));
  EXPECT_FALSE(std::filesystem::exists(folder + ".partial"));
}

TEST(Profile, RefusesGpuFlagsThatMeanNothing) {
  for (const std::vector<std::string>& wrong : std::vector<std::vector<std::string>>{
           {"--threads", "2"}, {"--backend", "onednn"}, {"--dtype", "int4"}, {"--budget", "1s"}, {"--format", "xml"}}) {
    EXPECT_EQ(run_moecast(with({"profile", "--device", "cuda"}, wrong)).code, 2) << wrong[0];
  }
  EXPECT_EQ(run_moecast({"profile", "--device", "cuda:x"}).code, 2);
  const Finished other = run_moecast({"profile", "--device", "tpu"});
  EXPECT_EQ(other.code, 2);
  EXPECT_THAT(other.err, HasSubstr("cuda"));
}

TEST(Profile, SaysWhenTheFolderCannotBeWritten) {
  const Finished denied = run_moecast(with(kSmall, {"/proc/moecast"}));
  EXPECT_EQ(denied.code, 4) << denied.err;
}

}  // namespace
}  // namespace moecast::test
