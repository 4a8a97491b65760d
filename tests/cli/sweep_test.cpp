#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using Json = nlohmann::json;

/// 2 x 2 x 200 = 800 points, more than a dozen blocks.
const std::vector<std::string> kLayers{"sweep",     "--hw", "amd-epyc-2cpu", "--hidden", "512,1024", "--width", "2048",
                                       "--experts", "8,16", "--top-k",       "2",        "--tokens", "1-200"};

std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> found;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) found.push_back(line);
  return found;
}

std::vector<Json> rows_of(const std::string& text) {
  std::vector<Json> rows;
  for (const std::string& line : lines(text)) rows.push_back(Json::parse(line));
  return rows;
}

TEST(SweepCommand, AnswersEveryCombinationAsPredictDoesInTheSameOrder) {
  const Finished swept = run_moecast({"sweep", "--hw", "amd-epyc-2cpu", "--hidden", "512,1024", "--width", "2048",
                                      "--experts", "16", "--top-k", "1,2", "--tokens", "1-64*4", "--format", "jsonl"});
  ASSERT_EQ(swept.code, 0) << swept.err;
  const Finished predicted =
      run_moecast({"predict", "--hw", "amd-epyc-2cpu", "--hidden", "512,1024", "--width", "2048", "--experts", "16",
                   "--top-k", "1,2", "--tokens", "1-64*4", "--format", "jsonl"});
  const std::vector<Json> rows = rows_of(swept.out);
  const std::vector<Json> answers = rows_of(predicted.out);
  ASSERT_EQ(rows.size(), 16U);
  ASSERT_EQ(answers.size(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const char* key : {"status", "reason", "latency_s", "latency_low_s", "latency_high_s", "factors",
                            "throughput_tokens_per_s", "memory_per_rank", "bottleneck", "origin"}) {
      EXPECT_EQ(rows[i].at(key), answers[i].at(key)) << key << " of row " << i;
    }
    for (const char* key : {"hidden", "top_k", "tokens"}) EXPECT_EQ(rows[i].at(key), answers[i].at("inputs").at(key));
    EXPECT_FALSE(rows[i].contains("width")) << "does not vary";
  }
}

TEST(SweepCommand, WritesTheSameBytesWithOneThreadAndWithTwo) {
  const std::string folder = fresh_folder("sweep-threads");
  for (const char* format : {"csv", "jsonl"}) {
    const std::string one = folder + "/one." + format;
    const std::string two = folder + "/two." + format;
    const Finished first = run_moecast(with(kLayers, {"--jobs", "1", "-o", one}));
    ASSERT_EQ(first.code, 0) << first.err;
    ASSERT_EQ(run_moecast(with(kLayers, {"--jobs", "2", "-o", two})).code, 0);
    const std::string text = content(one);
    EXPECT_EQ(lines(text).size(), 800U + (std::string(format) == "csv" ? 1 : 0));
    EXPECT_EQ(text, content(two));
    EXPECT_EQ(text, run_moecast(with(kLayers, {"--format", format})).out) << "and on standard output";
    EXPECT_FALSE(fs::exists(one + ".part"));
    EXPECT_FALSE(fs::exists(one + ".part.json"));
    EXPECT_THAT(first.err, HasSubstr("800 ok"));
  }
}

TEST(SweepCommand, ListsVaryWordsAndNumbersOfAHistogramStayTogether) {
  const Finished swept =
      run_moecast({"sweep", "--model", "olmoe-1b-7b,mixtral-8x7b", "--hw", "h200-sxm,amd-epyc-2cpu", "--dtype", "bf16",
                   "--batch", "1,8", "--load", "uniform,zipf:1.0", "--format", "jsonl"});
  ASSERT_EQ(swept.code, 0) << swept.err;
  const std::vector<Json> rows = rows_of(swept.out);
  ASSERT_EQ(rows.size(), 16U);
  EXPECT_EQ(rows[0].at("model"), "olmoe-1b-7b");
  EXPECT_EQ(rows[15].at("model"), "mixtral-8x7b");
  EXPECT_EQ(rows[15].at("hw"), "amd-epyc-2cpu");
  EXPECT_EQ(rows[15].at("load"), "zipf:1.0");
  EXPECT_EQ(rows[15].at("batch"), 8);
  const Finished loads =
      run_moecast({"sweep", "--hw", "amd-epyc-2cpu", "--hidden", "512", "--width", "512", "--experts", "3", "--top-k",
                   "1", "--tokens", "64", "--load", "uniform,histogram:3,1,1,zipf:1.0", "--format", "jsonl"});
  ASSERT_EQ(loads.code, 0) << loads.err;
  ASSERT_EQ(rows_of(loads.out).size(), 3U);
  EXPECT_EQ(rows_of(loads.out)[1].at("load"), "histogram:3,1,1");
}

TEST(SweepCommand, CapacitiesOffloadsAndTrainingAreListsToo_A8) {
  const Finished layers = run_moecast({"sweep", "--hw", "amd-epyc-2cpu", "--hidden", "512", "--width", "512",
                                       "--experts", "8", "--top-k", "2", "--tokens", "64", "--capacity-factor",
                                       "0.5,1,1.5,2", "--overflow", "drop,next-best", "--format", "jsonl"});
  ASSERT_EQ(layers.code, 0) << layers.err;
  const std::vector<Json> rows = rows_of(layers.out);
  ASSERT_EQ(rows.size(), 8U);
  EXPECT_EQ(rows[0].at("capacity_factor"), 0.5);
  EXPECT_EQ(rows[7].at("capacity_factor"), 2.0);
  EXPECT_EQ(rows[7].at("overflow"), "next-best");
  const Finished training =
      run_moecast({"sweep", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--phase", "train", "--batch", "8", "--zero",
                   "0-3", "--replicas", "8", "--recompute", "none,full", "--prompt", "512", "--format", "jsonl"});
  ASSERT_EQ(training.code, 0) << training.err;
  ASSERT_EQ(rows_of(training.out).size(), 8U);
  for (const Json& row : rows_of(training.out)) EXPECT_EQ(row.at("status"), "ok") << row;
}

TEST(SweepCommand, FlagsOfOnePhaseAreLeftOutOfTheOthers) {
  const Finished swept =
      run_moecast({"sweep", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--phase", "decode,prefill", "--context",
                   "1024,2048,4096", "--prompt", "64,128", "--format", "jsonl"});
  ASSERT_EQ(swept.code, 0) << swept.err;
  const std::vector<Json> rows = rows_of(swept.out);
  ASSERT_EQ(rows.size(), 5U) << "three contexts in decode, two prompts in prefill";
  EXPECT_EQ(rows[2].at("context_tokens"), 4096);
  EXPECT_TRUE(rows[2].at("prompt_tokens").is_null());
  EXPECT_EQ(rows[4].at("prompt_tokens"), 128);
}

TEST(SweepCommand, ACombinationThatIsAnErrorIsARow) {
  const Finished swept = run_moecast({"sweep", "--hw", "amd-epyc-2cpu", "--hidden", "512", "--width", "512",
                                      "--experts", "2,8", "--top-k", "1,4", "--tokens", "8", "--format", "jsonl"});
  ASSERT_EQ(swept.code, 0) << swept.err;
  const std::vector<Json> rows = rows_of(swept.out);
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[0].at("status"), "ok");
  EXPECT_EQ(rows[1].at("status"), "invalid");
  EXPECT_EQ(rows[1].at("reason"), "--top-k: is 4, but there are only 2 experts");
  EXPECT_TRUE(rows[1].at("latency_s").is_null());
  EXPECT_TRUE(rows[1].at("memory_per_rank").at("total_bytes").is_null()) << "unknown is not zero";
  EXPECT_EQ(rows[1].at("top_k"), 4);
  const Finished ranks = run_moecast({"sweep", "--model", "qwen3-235b-a22b", "--hw", "h200-sxm", "--tp", "1,3,8"});
  ASSERT_EQ(ranks.code, 0) << ranks.err;
  const std::vector<std::string> table = lines(ranks.out);
  ASSERT_EQ(table.size(), 4U);
  EXPECT_THAT(table[0], StartsWith("tp,status,reason,latency_s,latency_low_s,latency_high_s,"));
  EXPECT_THAT(table[1], StartsWith("1,does_not_fit,"));
  EXPECT_THAT(table[2], StartsWith("3,invalid,"));
  EXPECT_THAT(table[3], StartsWith("8,ok,,0.0"));
  for (const std::string& row : table) {
    if (row.find('"') == std::string::npos) {
      EXPECT_EQ(std::ranges::count(row, ','), std::ranges::count(table[0], ','));
    }
  }
}

TEST(SweepCommand, EveryRowHasItsOwnWarnings) {
  const Finished swept =
      run_moecast({"sweep", "--model", "qwen3-235b-a22b", "--hw", "h200-sxm", "--dtype", "fp8_block", "--backend",
                   "vllm,trtllm", "--tp", "8", "--ep", "2,8", "--batch", "64", "--format", "jsonl"});
  ASSERT_EQ(swept.code, 0) << swept.err;
  const std::vector<Json> rows = rows_of(swept.out);
  ASSERT_EQ(rows.size(), 4U);
  for (const Json& row : rows) {
    const bool refused = row.at("backend") == "vllm" && row.at("ep") == 2;
    const std::string warnings = row.at("warnings").is_string() ? row.at("warnings").get<std::string>() : "";
    EXPECT_EQ(warnings.find("does not run ep 2") != std::string::npos, refused) << row;
  }
}

TEST(SweepCommand, ADenseModelHasNoExpertsToSpread) {
  const Finished swept = run_moecast({"sweep", "--model", "llama-3.1-70b", "--hw", "h200-sxm", "--tp", "8", "--ep",
                                      "1,8", "--batch", "8", "--format", "jsonl"});
  const std::vector<Json> rows = rows_of(swept.out);
  ASSERT_EQ(rows.size(), 2U) << swept.err;
  EXPECT_EQ(rows[0].at("status"), "ok");
  EXPECT_EQ(rows[1].at("status"), "invalid");
  const Finished served =
      run_moecast({"serve", "--model", "llama-3.1-70b", "--hw", "h200-sxm", "--tp", "8", "--ep", "8", "--rate", "1"});
  EXPECT_EQ(served.code, 2);
  EXPECT_THAT(served.err, testing::HasSubstr("has no experts"));
}

TEST(SweepCommand, SaysWhenEveryPointIsInvalid) {
  const Finished swept = run_moecast({"sweep", "--model", "qwen3-235b-a22b", "--hw", "h200-sxm", "--ep", "3,7"});
  EXPECT_EQ(swept.code, 0) << swept.err;
  EXPECT_THAT(swept.err, HasSubstr("warning: every point is invalid, the first because --ep: "));
}

/// FILE.part and FILE.part.json of a run that was killed after `bytes`.
void make_unfinished(const std::string& finished, const std::string& question, const std::string& file,
                     std::size_t bytes) {
  write_text(file + ".part", finished.substr(0, bytes));
  write_text(file + ".part.json", question);
}

class SweepResume : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fresh_folder("sweep-resume");
    ASSERT_EQ(run_moecast(with(kLayers, {"-o", folder_ + "/whole.csv"})).code, 0);
    whole_ = content(folder_ + "/whole.csv");
    // A full disk is one way to leave an unfinished file behind.
    const Finished full = run_moecast(with(kLayers, {"-o", file()}), {.file_limit_bytes = 60'000});
    EXPECT_EQ(full.code, 4) << full.err;
    EXPECT_THAT(full.err, HasSubstr("o.csv.part: cannot be written"));
    question_ = content(file() + ".part.json");
    ASSERT_FALSE(fs::exists(file()));
    ASSERT_EQ(fs::file_size(file() + ".part"), 60'000U);
  }
  [[nodiscard]] std::string file() const { return folder_ + "/o.csv"; }

  std::string folder_, whole_, question_;
};

TEST_F(SweepResume, GoesOnAfterTheLastCompleteRow) {
  const Finished resumed = run_moecast(with(kLayers, {"-o", file()}));
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("of 800 rows are there already"));
  EXPECT_THAT(resumed.err, HasSubstr("were there, "));
  EXPECT_EQ(content(file()), whole_);
  EXPECT_FALSE(fs::exists(file() + ".part"));
  EXPECT_FALSE(fs::exists(file() + ".part.json"));
}

TEST_F(SweepResume, AnyPlaceToBeCutOffWillDo) {
  const std::size_t header = whole_.find('\n') + 1;
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{10}, header - 1, header, header + 1,
                                  whole_.find('\n', header) + 1, whole_.size() - 1, whole_.size()}) {
    fs::remove(file());
    make_unfinished(whole_, question_, file(), bytes);
    const Finished resumed = run_moecast(with(kLayers, {"-o", file()}));
    ASSERT_EQ(resumed.code, 0) << bytes << ": " << resumed.err;
    EXPECT_EQ(content(file()), whole_) << "cut off after " << bytes;
  }
}

TEST_F(SweepResume, OtherFlagsAreRefusedAndForceStartsAnew) {
  std::vector<std::string> other = with(kLayers, {"-o", file(), "--load", "zipf:1.0"});
  const Finished refused = run_moecast(other);
  EXPECT_EQ(refused.code, 3) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr("was begun with other flags: --load was nothing, now it is zipf:1.0"));
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_EQ(fs::file_size(file() + ".part"), 60'000U) << "nothing is lost";
  other.emplace_back("--force");
  EXPECT_EQ(run_moecast(other).code, 0);
  EXPECT_NE(content(file()), whole_);
  EXPECT_EQ(lines(content(file())).size(), 801U);
}

TEST_F(SweepResume, EveryFlagIsPartOfTheQuestion) {
  for (const std::vector<std::string>& more : std::vector<std::vector<std::string>>{
           {"--no-gated"}, {"--capacity-factor", "1.25"}, {"--threads", "1"}, {"--seed", "2"}, {"--copies", "2"}}) {
    std::vector<std::string> asked = with(kLayers, {"-o", file()});
    const Finished refused = run_moecast(with(asked, more));
    EXPECT_EQ(refused.code, 3) << more.front();
    EXPECT_THAT(refused.err, HasSubstr("was begun with other flags: " + more.front() + " was nothing"));
  }
}

TEST_F(SweepResume, RowsThatAreNotWhatIsAnsweredNowAreRefused) {
  std::string changed = whole_.substr(0, whole_.find("\n", 2'000) + 1);
  changed[changed.size() - 3] = 'X';
  make_unfinished(changed, question_, file(), changed.size());
  const Finished refused = run_moecast(with(kLayers, {"-o", file()}));
  EXPECT_EQ(refused.code, 3) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr("is not what is answered now"));
  make_unfinished(whole_ + "1,2,3\n", question_, file(), whole_.size() + 6);
  EXPECT_THAT(run_moecast(with(kLayers, {"-o", file()})).err, HasSubstr("more rows"));
  make_unfinished("a,b\n1,2\n", question_, file(), 8);
  EXPECT_THAT(run_moecast(with(kLayers, {"-o", file()})).err, HasSubstr("other columns"));
  fs::remove(file() + ".part.json");
  EXPECT_EQ(run_moecast(with(kLayers, {"-o", file()})).code, 3);
  for (const char* broken : {"{", "[]", "7", ""}) {
    make_unfinished(whole_, broken, file(), 60'000);
    EXPECT_EQ(run_moecast(with(kLayers, {"-o", file()})).code, 3) << broken;
  }
}

TEST(SweepCommand, ControlCKeepsWhatIsThereAndTheSameCommandGoesOn) {
  const std::string folder = fresh_folder("sweep-interrupt");
  const std::string file = folder + "/o.csv";
  const std::vector<std::string> asked{"sweep",   "--hw",       "amd-epyc-2cpu", "--hidden", "64-6400+64",
                                       "--width", "64-6400+64", "--experts",     "16",       "--top-k",
                                       "1-16",    "--tokens",   "1-64",          "-o",       file};
  const Finished interrupted = run_moecast(asked, {.interrupt_after_s = 0.2, .interrupt_when = "sweeping"});
  EXPECT_EQ(interrupted.code, 130) << interrupted.err;
  EXPECT_THAT(interrupted.err, HasSubstr("sweeping 10240000 points"));
  EXPECT_THAT(interrupted.err, HasSubstr("interrupted after "));
  EXPECT_FALSE(fs::exists(file));
  const std::string kept = content(file + ".part");
  EXPECT_TRUE(kept.ends_with('\n')) << "whole rows only";
  EXPECT_GT(lines(kept).size(), 64U);
  const Finished again = run_moecast(asked, {.interrupt_after_s = 0.2, .interrupt_when = "sweeping"});
  EXPECT_EQ(again.code, 130) << again.err;
  EXPECT_THAT(again.err, HasSubstr("rows are there already"));
  EXPECT_THAT(content(file + ".part"), StartsWith(kept));
}

/// A program in Python's place: what it is called with goes to FOLDER/calls.
std::string python_of(const std::string& folder, const std::string& conversion) {
  const std::string path = folder + "/python";
  write_text(path,
             "#!/bin/sh\necho \"$@\" >> " + folder + "/calls\n[ \"$3\" = --check ] && exit 0\n" + conversion + "\n");
  fs::permissions(path, fs::perms::owner_all);
  return path;
}

TEST(SweepParquet, WithoutThePackageNothingIsSweptAndTheErrorSaysHowToGetIt) {
  const std::string folder = fresh_folder("sweep-no-parquet");
  write_text(folder + "/python", "#!/bin/sh\nexit 1\n");
  fs::permissions(folder + "/python", fs::perms::owner_all);
  for (const std::string& python : {folder + "/python", folder + "/none"}) {
    const Finished refused =
        run_moecast(with(kLayers, {"-o", folder + "/o.parquet"}), {.environment = {{"MOECAST_PYTHON", python}}});
    EXPECT_EQ(refused.code, 4) << refused.err;
    EXPECT_THAT(refused.err, HasSubstr("pip install '.[parquet]'"));
    EXPECT_THAT(refused.err, HasSubstr("MOECAST_PYTHON"));
    EXPECT_FALSE(fs::exists(folder + "/o.parquet.part"));
  }
}

TEST(SweepParquet, RowsStayWhereTheyAreUntilTheyAreConverted) {
  const std::string folder = fresh_folder("sweep-parquet");
  const std::string file = folder + "/o.parquet";
  const ProgramOptions failing{.environment = {{"MOECAST_PYTHON", python_of(folder, "exit 3")}}};
  const Finished failed = run_moecast(with(kLayers, {"-o", file}), failing);
  EXPECT_EQ(failed.code, 4) << failed.err;
  EXPECT_THAT(failed.err, HasSubstr("cannot be written as Parquet"));
  EXPECT_FALSE(fs::exists(file));
  const std::string rows = content(file + ".part");
  EXPECT_EQ(rows, run_moecast(with(kLayers, {"--format", "csv"})).out);
  const ProgramOptions copying{.environment = {{"MOECAST_PYTHON", python_of(folder, "cp \"$3\" \"$4\"")}}};
  const Finished resumed = run_moecast(with(kLayers, {"-o", file}), copying);
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("800 of 800 rows are there already"));
  EXPECT_EQ(content(file), rows);
  EXPECT_FALSE(fs::exists(file + ".part"));
  EXPECT_FALSE(fs::exists(file + ".part.json"));
  const std::vector<std::string> calls = lines(content(folder + "/calls"));
  ASSERT_EQ(calls.size(), 4U);
  EXPECT_EQ(calls[3], "-m moecast.parquet " + file + ".part " + file +
                          " --text status,reason,bottleneck,origin,warnings --whole hidden,experts,tokens --question " +
                          file + ".part.json");
}

TEST(SweepCommand, RefusesWhatCannotBeSwept) {
  const std::string folder = fresh_folder("sweep-refusals");
  write_text(folder + "/there.csv", "mine\n");
  const auto refusal = [](std::vector<std::string> more, int code, const char* what) {
    const Finished finished = run_moecast(with(kLayers, more));
    EXPECT_EQ(finished.code, code) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(what));
    EXPECT_EQ(finished.out, "");
  };
  refusal({"-o", folder + "/there.csv"}, 2, "is there already");
  EXPECT_EQ(content(folder + "/there.csv"), "mine\n");
  refusal({"-o", folder + "/rows.xlsx"}, 2, "neither in .csv nor in .jsonl nor in .parquet");
  refusal({"-o", folder, "--format", "csv"}, 2, "is there and is no file");
  refusal({"-o", "/dev/null", "--format", "csv"}, 2, "is there and is no file");
  refusal({"-o", folder + "/no/such/folder/o.csv"}, 4, "cannot be written");
  refusal({"-o", ""}, 2, "-o");
  refusal({"--format", "table"}, 2, "write csv, jsonl or parquet");
  refusal({"--format", "json"}, 2, "write csv, jsonl or parquet");
  refusal({"--format", "parquet"}, 2, "parquet needs a file");
  refusal({"--force"}, 2, "--force");
  refusal({"--jobs", "0"}, 2, "--jobs");
  refusal({"--jobs", "all"}, 2, "--jobs");
  refusal({"--hw", "amd-epyc-2cpu,"}, 2, "--hw");
  refusal({"--model", "olmoe-1b-7b"}, 2, "exclude each other");
  refusal({"--load", "uniform,zipff:1"}, 2, "did you mean \"zipf\"?");
  refusal({"--load", "3,uniform"}, 2, "--load");
  refusal({"--strategy", "grouped,lop"}, 2, "did you mean \"loop\"?");
  refusal({"--dtype", "bf16,bf17"}, 2, "did you mean \"bf16\"?");
  refusal({"--activation", "silly"}, 2, "write one of: relu");
  refusal({"--batch", "8"}, 2, "means nothing for a single layer");
  const Finished many = run_moecast({"sweep", "--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--batch", "1-100000",
                                     "--context", "1-100000", "--copies", "1-4096"});
  EXPECT_EQ(many.code, 2);
  EXPECT_THAT(many.err, HasSubstr("makes more than 1000000000 combinations"));
  const Finished nothing = run_moecast({"sweep", "--hw", "amd-epyc-2cpu"});
  EXPECT_EQ(nothing.code, 2);
  EXPECT_THAT(nothing.err, HasSubstr("--model: is missing"));
}

}  // namespace
}  // namespace moecast::test
