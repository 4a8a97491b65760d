#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "tests/cli/made_up_profile.h"
#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using Words = std::vector<std::string>;

constexpr int kUsage = 2;
constexpr int kInput = 3;

/// Refused with where, what and how on standard error in two lines, and nothing on standard output.
void expect_refusal(const Finished& run, int code, const std::string& where, const std::string& what,
                    const std::string& how) {
  EXPECT_EQ(run.code, code) << run.err;
  EXPECT_EQ(run.out, "");
  EXPECT_THAT(run.err, StartsWith("error: " + where + ": "));
  const std::size_t hint = run.err.find("\nhint: ");
  ASSERT_NE(hint, std::string::npos) << run.err;
  EXPECT_THAT(run.err.substr(0, hint), HasSubstr(what));
  EXPECT_THAT(run.err.substr(hint), HasSubstr(how));
  EXPECT_EQ(run.err.find('\n', hint + 1), run.err.size() - 1) << "more than one line of hint: " << run.err;
}

/// Every command that reads a model refuses a file in the same words, whatever the format.
void expect_file_refused(const std::string& file, const std::string& where, const std::string& what,
                         const std::string& how, const std::string& profile) {
  for (const char* format : {"table", "json", "csv"}) {
    SCOPED_TRACE(format);
    expect_refusal(run_moecast({"predict", "--model", file, "--hw", profile, "--format", format}), kInput, where, what,
                   how);
  }
  expect_refusal(run_moecast({"explain", "--model", file, "--hw", profile, "--format", "json"}), kInput, where, what,
                 how);
  expect_refusal(run_moecast({"describe", file}), kInput, where, what, how);
}

class BadModelFile : public testing::Test {
 protected:
  void refused(const std::string& text, const std::string& at, const std::string& what, const std::string& how) {
    const std::string file = folder_ + "/config.json";
    write_text(file, text);
    expect_file_refused(file, file + at, what, how, profile_);
  }
  void member_refused(const std::string& from, const std::string& to, const std::string& what, const std::string& how) {
    std::string text = kMixtral;
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    const std::string file = folder_ + "/config.json";
    write_text(file, text.replace(at, from.size(), to));
    const Finished run = run_moecast({"predict", "--model", file, "--hw", profile_, "--format", "json"});
    EXPECT_EQ(run.code, kInput) << to << run.err;
    EXPECT_EQ(run.out, "");
    EXPECT_THAT(run.err, StartsWith("error: " + file));
    EXPECT_THAT(run.err, HasSubstr(what));
    EXPECT_THAT(run.err, HasSubstr("\nhint: "));
    EXPECT_THAT(run.err, HasSubstr(how));
  }

  static constexpr const char* kMixtral =
      R"({"model_type": "mixtral", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
          "num_attention_heads": 8, "num_key_value_heads": 4, "num_local_experts": 8, "num_experts_per_tok": 2,
          "vocab_size": 1000, "torch_dtype": "float32"})";
  std::string folder_ = fresh_folder("bad-model");
  std::string profile_ = made_up_profile("bad-model-profile");
};

TEST_F(BadModelFile, TheGoodOneIsAnswered) {
  const std::string file = folder_ + "/config.json";
  write_text(file, kMixtral);
  const Finished run = run_moecast({"predict", "--model", file, "--hw", profile_, "--format", "json"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("\"status\": \"ok\""));
}

TEST_F(BadModelFile, ThatIsNotJsonSaysLineAndColumn) {
  refused("hidden_size: 4\n", ": line 1, column 1", "is not valid JSON", "mend it there");
  refused("{\"model_type\": \"mixtral\",\n \"hidden_size\": 4", ": line 2, column 18", "is not valid JSON",
          "copy it again");
}

TEST_F(BadModelFile, ThatIsEmptySaysSo) { refused("", ": line 1, column 1", "is not valid JSON", "the file is empty"); }

TEST_F(BadModelFile, ThatIsBinaryIsNoText) {
  std::string noise(5000, '\0');
  std::mt19937 generator(1);
  for (char& byte : noise) byte = static_cast<char>(generator());
  refused(noise, "", "holds a zero byte", "not a file of the expected kind");
  refused(std::string("{\"model_type\": \"mixtral\"}\0", 26), "", "holds a zero byte", "expected kind");
}

TEST_F(BadModelFile, ThatIsNotUtf8SaysWhere) {
  refused("{\"model_type\": \"mixtr\xe9l\"}", ": line 1, column 23", "ill-formed UTF-8", "mend it there");
}

TEST_F(BadModelFile, ThatIsNestedDeeplyIsRefusedBeforeTheStackEnds) {
  refused(std::string(1000000, '['), "", "nested deeper than 200", "expected kind");
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  refused(objects, "", "nested deeper than 200", "expected kind");
}

TEST_F(BadModelFile, ThatHasAKeyTwiceNamesIt) {
  refused(R"({"model_type": "mixtral", "hidden_size": 4, "hidden_size": 8})", "", "\"hidden_size\" stands twice",
          "keep one");
}

TEST_F(BadModelFile, ThatIsSomethingElseSaysWhatAModelIs) {
  for (const char* text : {"[]", "\"hi\"", "{}", "null", "3"}) {
    SCOPED_TRACE(text);
    refused(text, "", "is not a model", "model_type");
  }
}

TEST_F(BadModelFile, ThatHasOneGigabyteIsRefusedByItsSizeInLittleMemory) {
  const std::string file = folder_ + "/big.json";
  write_text(file, "{");
  ASSERT_EQ(truncate(file.c_str(), off_t{1} << 30), 0);
  const Finished run = run_moecast({"describe", file}, {.memory_limit_bytes = std::size_t{600} << 20});
  expect_refusal(run, kInput, file, "is larger than 64 MiB", "not a file of the expected kind");
  expect_file_refused(file, file, "is larger than 64 MiB", "not a file of the expected kind", profile_);
}

TEST_F(BadModelFile, WithNegativeOrAbsurdSizesNamesTheField) {
  member_refused("\"hidden_size\": 256", "\"hidden_size\": -256", "hidden_size: is -256", "correct");
  member_refused("\"hidden_size\": 256", "\"hidden_size\": 0", "hidden_size: is 0", "correct");
  member_refused("\"hidden_size\": 256", "\"hidden_size\": 1e30", "hidden_size: ", "correct");
  member_refused("\"hidden_size\": 256", "\"hidden_size\": 99999999999999999999999", "hidden_size: ", "");
  member_refused("\"hidden_size\": 256", "\"hidden_size\": 1e999", "is not valid JSON", "");
  member_refused("\"hidden_size\": 256", "\"hidden_size\": \"256\"", "hidden_size: expected a whole number", "correct");
  member_refused("\"hidden_size\": 256", "\"hidden_size\": 25.5", "hidden_size: expected a whole number", "correct");
  member_refused("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2000000000", "num_hidden_layers: is 2000000000",
                 "");
  member_refused("\"num_local_experts\": 8", "\"num_local_experts\": -1", "num_local_experts: is -1", "correct");
  member_refused("\"num_key_value_heads\": 4", "\"num_key_value_heads\": 3", "3", "");
  member_refused("\"hidden_size\": 256, ", "", "\"hidden_size\" (also", "size is unknown");
}

TEST_F(BadModelFile, WithMoreChoicesThanExpertsSaysBoth) {
  member_refused("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9", "9", "");
}

TEST_F(BadModelFile, ThatCannotBeOpenedSaysWhy) {
  const auto refuse = [&](const std::string& path, const std::string& what, const std::string& how) {
    SCOPED_TRACE(path);
    expect_file_refused(path, path, what, how, profile_);
  };
  refuse(folder_ + "/none.json", "no such file", "check the path");
  refuse(folder_, "is a folder", "name a file");
  std::filesystem::create_symlink("b.json", folder_ + "/a.json");
  std::filesystem::create_symlink("a.json", folder_ + "/b.json");
  refuse(folder_ + "/a.json", "Too many levels of symbolic links", "check the path");
  ASSERT_EQ(mkfifo((folder_ + "/pipe.json").c_str(), 0600), 0);
  refuse(folder_ + "/pipe.json", "is not a regular file", "copy it");
  refuse("/dev/zero", "is not a regular file", "copy it");
  write_text(folder_ + "/secret.json", "{}");
  std::filesystem::permissions(folder_ + "/secret.json", std::filesystem::perms::none);
  if (geteuid() != 0) refuse(folder_ + "/secret.json", "Permission denied", "permissions");
}

TEST_F(BadModelFile, CannotSteerTheTerminal) {
  write_text(folder_ + "/config.json", R"({"moecast_architecture": 1, "\u001b[31mred": 1})");
  const Finished run = run_moecast({"describe", folder_ + "/config.json"});
  EXPECT_EQ(run.code, kInput);
  EXPECT_THAT(run.err, HasSubstr("red"));
  EXPECT_EQ(run.err.find('\x1b'), std::string::npos);
}

class BadFlag : public testing::Test {
 protected:
  void refused(const Words& more, const std::string& where, const std::string& what, const std::string& how) {
    for (const char* command : {"predict", "explain"}) {
      Words words{command, "--hw", profile_, "--format", "json"};
      words.insert(words.end(), more.begin(), more.end());
      SCOPED_TRACE(testing::PrintToString(words));
      expect_refusal(run_moecast(words), kUsage, where, what, how);
    }
  }
  void model_refused(const Words& more, const std::string& where, const std::string& what, const std::string& how) {
    Words words{"--model", "mixtral-8x7b", "--dtype", "fp32"};
    words.insert(words.end(), more.begin(), more.end());
    refused(words, where, what, how);
  }
  void layer_refused(const Words& more, const std::string& where, const std::string& what, const std::string& how,
                     const char* tokens = "64", const char* top_k = "2") {
    Words words{"--hidden", "128", "--width", "256", "--experts", "8", "--top-k", top_k, "--tokens", tokens};
    words.insert(words.end(), more.begin(), more.end());
    refused(words, where, what, how);
  }
  std::string profile_ = made_up_profile("bad-flag-profile");
};

TEST_F(BadFlag, SizesOutOfRangeSayTheRange) {
  model_refused({"--batch", "0"}, "--batch", "0 is out of range", "expected 1 to");
  model_refused({"--batch", "-3"}, "--batch", "-3 is out of range", "expected 1 to");
  model_refused({"--batch=-3"}, "--batch", "-3 is out of range", "expected 1 to");
  model_refused({"--batch", "99999999999999999999"}, "--batch", "is too large", "expected at most");
  model_refused({"--batch", "8-1"}, "--batch", "descends", "write \"1-8\"");
  model_refused({"--batch", ","}, "--batch", "not a whole number", "digits");
  layer_refused({}, "--tokens", "\"1e30\" is not a whole number", "digits", "1e30");
  layer_refused({"--capacity-factor", "nan"}, "--capacity-factor", "\"nan\" is not a number", "1.5");
  layer_refused({"--load", "zipf:nan"}, "--load", "\"nan\" is not a number", "1.5");
  layer_refused({"--load", "zipf:-1"}, "--load", "-1 is out of range", "expected 0 to 100");
}

TEST_F(BadFlag, TopKAboveTheExpertsSaysTheRange) {
  layer_refused({}, "--top-k", "is 9, but there are only 8 experts", "choose 1 to 8", "64", "9");
}

TEST_F(BadFlag, DegreesThatDivideNoWidthNameTheFlag) {
  model_refused({"--tp", "3"}, "--tp", "3 ranks do not divide heads = 32", "divides it");
  model_refused({"--ep", "3"}, "--ep", "3 ranks do not divide experts = 8", "divides it");
  model_refused({"--cp", "2"}, "--cp", "by GPUs that serve only", "leave it out");
  model_refused({"--eager"}, "--eager", "no graphs are replayed", "leave it out");
  model_refused({"--redundant-experts", "2"}, "--redundant-experts", "on GPUs only", "leave it out");
  model_refused({"--micro-batches", "2"}, "--micro-batches", "of GPUs only", "leave it out");
  model_refused({"--pp", "33"}, "--pp", "33 stages for 32 layers", "one layer at least");
  layer_refused({"--ep", "2", "--moe-tp", "3"}, "--moe-tp", "3 ranks do not divide expert width = 256", "divides it");
}

TEST_F(BadFlag, ThatWouldBeIgnoredIsRefused) {
  model_refused({"--phase", "prefill", "--context", "64"}, "--context", "means nothing in this phase", "--prompt");
  model_refused({"--prompt", "64"}, "--prompt", "means nothing in this phase", "--phase prefill");
  model_refused({"--prefill-batch", "2"}, "--prefill-batch", "means nothing in this phase", "--phase mixed");
  layer_refused({"--batch", "2"}, "--batch", "means nothing for a single layer", "--tokens");
  layer_refused({"--overflow", "next-best"}, "--overflow", "means nothing without a capacity", "--capacity-factor");
  layer_refused({"--top-k", "2"}, "--top-k", "given more than once", "give it once");
}

TEST_F(BadFlag, LoadsThatFitNoExpertsNameTheFlag) {
  layer_refused({"--load", "histogram:1,2"}, "--load", "has 2 experts, the model 8", "one weight for each");
  layer_refused({"--load", "histogram:0,0,0,0,0,0,0,0"}, "--load", "gives no expert any weight", "above zero");
  layer_refused({"--load", "uniform:2"}, "--load", "takes no parameter", "uniform");
  layer_refused({"--rows", "1,2"}, "--rows", "has 2 experts, the layer 8", "one number for each");
  layer_refused({"--rows", "16,16,16,16,16,16,16,17"}, "--rows", "has 129 rows, 128 are routed", "top-k");
  layer_refused({"--rows", "65,0,0,0,0,0,0,0"}, "--rows", "gives an expert 65 rows of 64 tokens", "at most once");
  layer_refused({"--rows", "16,16,16,16,16,16,16,16", "--load", "uniform"}, "--rows", "exclude each other", "one of");
  layer_refused({"--pad"}, "--pad", "means nothing without a capacity", "--capacity-factor");
  layer_refused({"--load", "dirichlet:0"}, "--load", "must lie between 0.01 and", "a very skewed load");
  layer_refused({"--load", "histogram:1,0,0,0,0,0,0,0"}, "--load", "1 of 8 experts a weight, but every token chooses 2",
                "above zero");
  layer_refused({"--backend", ""}, "--backend", "is empty", "");
  model_refused({"--source", "9"}, "--source", "without an encoder and a decoder", "leave it out");
  model_refused({"--rows", "1,1"}, "--rows", "of a single MoE layer", "--load");
  layer_refused({"--rows", "1,,2"}, "--rows", "has an empty element", "a,b,c");
}

TEST_F(BadFlag, TyposSuggestTheNearest) {
  model_refused({"--bacth", "3"}, "--bacth", "unknown option", "did you mean \"--batch\"?");
  model_refused({"--backend", "onednm"}, "--backend", "not in the profile", "did you mean \"onednn\"?");
  model_refused({"--phase", "decod"}, "--phase", "not a phase", "did you mean \"decode\"?");
  model_refused({"--strategy", "lop"}, "--strategy", "not a kernel strategy", "did you mean \"loop\"?");
  model_refused({"--load", "zip:1"}, "--load", "not a load", "did you mean \"zipf\"?");
  refused({"--model", "mixtral-8x7"}, "--model", "no known model", "did you mean \"mixtral-8x7b\"?");
  layer_refused({"--skew", "nan"}, "--skew", "unknown option", "");
  layer_refused({"extra"}, "extra", "was not expected here", "--help");
}

TEST_F(BadFlag, AnUnknownFormatIsRefusedBeforeAnythingElse) {
  expect_refusal(run_moecast({"predict", "--hw", profile_, "--model", "mixtral-8x7b", "--format", "yaml"}), kUsage,
                 "--format", "not a format", "table, md, csv, json, jsonl");
}

TEST(BadUnit, GbMayMeanBitsAndHasNoPlaceInATime) {
  expect_refusal(run_moecast({"profile", "--budget", "8 Gb"}), kUsage, "--budget", "\"Gb\" is not a unit of",
                 "units: ");
  expect_refusal(run_moecast({"profile", "--budget", "90"}), kUsage, "--budget", "has no unit", "write a number and");
  expect_refusal(run_moecast({"profile", "--budget", "-5s"}), kUsage, "--budget", "is negative", "write e.g.");
  expect_refusal(run_moecast({"profile", "--budgte", "90s"}), kUsage, "--budgte", "unknown option", "\"--budget\"");
}

}  // namespace
}  // namespace moecast::test
