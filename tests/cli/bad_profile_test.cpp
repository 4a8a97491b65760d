#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/cli/made_up_profile.h"
#include "tests/cli/program.h"

namespace moecast::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;
using Words = std::vector<std::string>;

constexpr int kInput = 3;
constexpr int kDevice = 4;

class BadProfile : public testing::Test {
 protected:
  [[nodiscard]] Words words_of(const std::string& command) const {
    if (command == "calibrate") return {"calibrate", profile_, "--format", "json"};
    if (command == "validate") return {"validate", "--hw", profile_, "--cases", "1", "--format", "json"};
    return {command, "--hw",    profile_, "--hidden", "128", "--width",  "256", "--experts",
            "8",     "--top-k", "2",      "--tokens", "64",  "--format", "json"};
  }
  void refused(const Words& commands, const std::string& file, const std::string& what, const std::string& how) {
    for (const std::string& command : commands) {
      SCOPED_TRACE(command);
      const Finished run = run_moecast(words_of(command));
      EXPECT_EQ(run.code, kInput) << run.err;
      EXPECT_EQ(run.out, "");
      EXPECT_THAT(run.err, StartsWith("error: " + profile_ + file));
      EXPECT_THAT(run.err, HasSubstr(what));
      const std::size_t hint = run.err.find("\nhint: ");
      ASSERT_NE(hint, std::string::npos) << run.err;
      EXPECT_THAT(run.err.substr(hint), HasSubstr(how));
    }
  }
  void cut(const std::string& file) const { fs::resize_file(profile_ + file, fs::file_size(profile_ + file) / 2); }

  const Words all_{"predict", "explain", "validate", "calibrate"};
  const Words readers_{"predict", "explain", "validate"};  ///< of calibration.json
  const std::string profile_ = made_up_profile("bad-profile");
  const std::string gemm_ = "/samples/gemm.csv.gz";
};

TEST_F(BadProfile, TheGoodOneIsAnswered) {
  EXPECT_EQ(run_moecast(words_of("predict")).code, 0);
  EXPECT_EQ(run_moecast(words_of("explain")).code, 0);
  EXPECT_EQ(run_moecast(words_of("calibrate")).code, 0);
}

TEST_F(BadProfile, OfAnotherSchemaVersionSaysBoth) {
  replace_in_file(profile_ + "/profile.json", "\"schema_version\": 1", "\"schema_version\": 7");
  refused(all_, "/profile.json: /schema_version", "is 7, this program reads 1", "profile the machine again");
}

TEST_F(BadProfile, TruncatedSaysWhereItEnds) {
  cut("/profile.json");
  refused(all_, "/profile.json: line ", "is not valid JSON", "copy it again");
}

TEST_F(BadProfile, WithNaNSaysWhere) {
  replace_in_file(profile_ + "/profile.json", "\"value\": 25000000000.0", "\"value\": NaN");
  refused(all_, "/profile.json: line ", "is not valid JSON", "mend it there");
}

TEST_F(BadProfile, WithAnUnknownUnitSaysTheKnownOnes) {
  replace_in_file(profile_ + "/profile.json", "\"unit\": \"B\"", "\"unit\": \"Gb\"");
  refused(all_, "/profile.json: /quantities/memory_capacity/unit", "\"Gb\" is not a unit", "B, B/s, FLOP/s");
}

TEST_F(BadProfile, WithATypoInAFieldSuggestsTheNearest) {
  replace_in_file(profile_ + "/profile.json", "\"device\"", "\"devise\"");
  refused(all_, "/profile.json", "\"devise\" is not a known field", "did you mean \"device\"?");
}

TEST_F(BadProfile, WithoutProfileJsonSaysWhatItIs) {
  fs::remove(profile_ + "/profile.json");
  refused(all_, "", "has no profile.json", "moecast profile");
}

TEST_F(BadProfile, WithoutCalibrationSaysHowToMakeIt) {
  fs::remove(profile_ + "/calibration.json");
  refused(readers_, "/calibration.json", "no such file", "moecast calibrate " + profile_);
  const Finished again = run_moecast(words_of("calibrate"));
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(run_moecast(words_of("predict")).code, 0);
}

TEST_F(BadProfile, DamagedCalibrationSaysHowToMakeIt) {
  const std::string file = profile_ + "/calibration.json";
  const std::string good = read_whole(file);
  const std::string how = "moecast calibrate " + profile_;
  cut("/calibration.json");
  refused(readers_, "/calibration.json: line 1", "is not valid JSON", how);
  write_text(file, good);
  replace_in_file(file, "\"call_s\":", "\"call_s\":NaN,\"x\":");
  refused(readers_, "/calibration.json: line 1", "is not valid JSON", how);
  write_text(file, good);
  replace_in_file(file, "\"schema_version\":3", "\"schema_version\":9");
  refused(readers_, "/calibration.json: /schema_version", "is 9, this program reads 3", how);
  write_text(file, good);
  replace_in_file(file, "\"call_s\":", "\"call_s\":-1,\"x\":");
  refused(readers_, "/calibration.json: /gemms/0/law", "", how);
  EXPECT_EQ(run_moecast(words_of("calibrate")).code, 0);
  EXPECT_EQ(run_moecast(words_of("predict")).code, 0);
}

TEST_F(BadProfile, DamagedSamplesSayLineAndColumnAndKeepTheCalibration) {
  const std::string before = read_whole(profile_ + "/calibration.json");
  const std::string rows = read_whole(profile_ + gemm_);
  const std::size_t second = rows.find('\n') + 1;
  const Words calibrate{"calibrate"};
  const auto write = [&](const std::string& text) { write_text(profile_ + gemm_, text); };
  cut(gemm_);
  refused(calibrate, gemm_, "cannot be read", "truncated");
  write(rows.substr(0, rows.find('\n', second) - 30) + "\n");
  refused(calibrate, gemm_ + ": line 2", "", "measure again");
  std::string changed = rows;
  write(changed.replace(second, 6, "onednn,nan"));
  refused(calibrate, gemm_ + ": line 2", "", "measure again");
  changed = rows;
  for (int comma = 0, at = static_cast<int>(second);; ++at) {  // the tenth column is latency_s
    if (changed[static_cast<std::size_t>(at)] == ',' && ++comma == 9) {
      changed.insert(static_cast<std::size_t>(at) + 1, "nan");
      break;
    }
  }
  write(changed);
  refused(calibrate, gemm_ + ": line 2, column latency_s", "is not a number", "measure again");
  write("a,b\n1,2\n");
  refused(calibrate, gemm_ + ": line 1", "has other columns", "expected backend,dtype");
  write("");
  refused(calibrate, gemm_, "is empty", "moecast profile");
  fs::remove_all(profile_ + "/samples");
  refused(calibrate, "/samples", "holds no samples", "moecast profile");
  EXPECT_EQ(read_whole(profile_ + "/calibration.json"), before);
  EXPECT_EQ(run_moecast(words_of("predict")).code, 0);
}

TEST_F(BadProfile, OneBadProfileHidesNoOtherInTheList) {
  const std::string own = fresh_folder("bad-profile-list");
  fs::copy(profile_, own + "/good", fs::copy_options::recursive);
  fs::copy(profile_, own + "/bad", fs::copy_options::recursive);
  fs::resize_file(own + "/bad/profile.json", 20);
  const Finished listed = run_moecast({"list", "hw", "--format", "csv"}, {.environment = {{"MOECAST_PROFILES", own}}});
  EXPECT_EQ(listed.code, 0);
  EXPECT_THAT(listed.out, HasSubstr(own + "/good"));
  EXPECT_THAT(
      run_moecast({"predict", "--hw", "bad", "--model", "mixtral-8x7b"}, {.environment = {{"MOECAST_PROFILES", own}}})
          .err,
      StartsWith("error: " + own + "/bad/profile.json: line "));
}

TEST_F(BadProfile, AFullDiskKeepsTheOldCalibrationAndNoRubbish) {
  const std::string before = read_whole(profile_ + "/calibration.json");
  const Finished full = run_moecast(words_of("calibrate"), {.file_limit_bytes = 512});
  EXPECT_EQ(full.code, kDevice) << full.err;
  EXPECT_EQ(full.out, "");
  EXPECT_THAT(full.err, HasSubstr("error: " + profile_ + "/calibration.json: cannot be written: File too large"));
  EXPECT_THAT(full.err, HasSubstr("\nhint: raise the limit"));
  EXPECT_EQ(read_whole(profile_ + "/calibration.json"), before);
  for (const auto& entry : fs::directory_iterator(profile_)) {
    EXPECT_THAT(entry.path().filename().string(), testing::AnyOf("profile.json", "calibration.json", "samples"));
  }
}

TEST_F(BadProfile, AFullDiskWhileProfilingLosesNothingThatIsThere) {
  const std::string before = read_whole(profile_ + "/calibration.json");
  const Finished full = run_moecast({"profile", "--budget", "5s", "--backend", "onednn", "--dtype", "fp32", "--threads",
                                     "1", "--out", profile_, "--fresh"},
                                    {.file_limit_bytes = 256});
  EXPECT_EQ(full.code, kDevice) << full.err;
  EXPECT_EQ(full.out, "");
  EXPECT_THAT(full.err, HasSubstr("cannot be written"));
  EXPECT_EQ(read_whole(profile_ + "/calibration.json"), before);
  EXPECT_EQ(run_moecast(words_of("predict")).code, 0);
}

class BadTarget : public testing::Test {
 protected:
  void refused(const Words& more, int code, const std::string& where, const std::string& what, const std::string& how) {
    Words words{"profile", "--budget", "3600s"};  // whoever measures before the refusal does not end in time
    words.insert(words.end(), more.begin(), more.end());
    SCOPED_TRACE(testing::PrintToString(words));
    const Finished run = run_moecast(words, {.interrupt_after_s = 20});
    EXPECT_EQ(run.code, code) << run.err;
    EXPECT_EQ(run.out, "");
    EXPECT_THAT(run.err, StartsWith("error: " + where + ": "));
    EXPECT_THAT(run.err, HasSubstr(what));
    EXPECT_THAT(run.err, HasSubstr("\nhint: " + how));
  }
  const std::string folder_ = fresh_folder("bad-target");
};

TEST_F(BadTarget, AFolderWithOtherThingsIsNeverReplaced) {
  write_text(folder_ + "/thesis.txt", "years of work");
  refused({"--out", folder_}, 2, folder_, "holds \"thesis.txt\"", "choose another --out");
  refused({"--out", folder_ + "///"}, 2, folder_, "holds \"thesis.txt\"", "choose another --out");
  fs::create_directories(folder_ + "/me.old");
  write_text(folder_ + "/me.old/thesis.txt", "years of work");
  refused({"--out", folder_ + "/me"}, 2, folder_ + "/me.old", "holds \"thesis.txt\"", "choose another --out");
  EXPECT_EQ(read_whole(folder_ + "/thesis.txt"), "years of work");
  EXPECT_EQ(read_whole(folder_ + "/me.old/thesis.txt"), "years of work");
}

TEST_F(BadTarget, WhatCannotBeAFolderIsRefusedBeforeAnythingIsMeasured) {
  write_text(folder_ + "/file", "");
  refused({"--out", folder_ + "/file"}, 2, folder_ + "/file", "is not a folder", "choose another --out");
  refused({"--out", "/dev/null"}, 2, "/dev/null", "is not a folder", "choose another --out");
  refused({"--out", "/proc/moecast"}, kDevice, "/proc/moecast.partial", "cannot be made", "choose a folder");
  refused({"--name", "a/b"}, 2, "--name", "\"a/b\" is no name", "write letters");
  refused({"--name", ".."}, 2, "--name", "\"..\" is no name", "write letters");
}

TEST_F(BadTarget, ADtypeThatNoBackendComputesIsRefusedNotLeftOut) {
  refused({"--backend", "eigen", "--dtype", "fp32,bf16"}, 2, "--dtype", "eigen does not compute bf16",
          "moecast doctor");
  refused({"--backend", "openblas,eigen", "--dtype", "bf16"}, 2, "--dtype", "does not compute bf16", "moecast doctor");
}

TEST_F(BadTarget, ABrokenUnfinishedProfileSaysHowToStartAnew) {
  fs::create_directories(folder_ + "/me.partial");
  write_text(folder_ + "/me.partial/profile.json", "{");
  refused({"--out", folder_ + "/me"}, kInput, folder_ + "/me.partial/profile.json: line 1, column 2",
          "is not valid JSON", "moecast profile --fresh");
}

TEST_F(BadProfile, AFullStandardOutputIsSaidInEveryCommand) {
  for (const std::string command : {"predict", "explain", "calibrate"}) {
    const Finished full = run_moecast(words_of(command), {.stdout_to = "/dev/full"});
    EXPECT_EQ(full.code, kDevice) << command;
    EXPECT_THAT(full.err, HasSubstr("error: standard output: cannot be written: No space left on device\nhint: "));
  }
}

}  // namespace
}  // namespace moecast::test
