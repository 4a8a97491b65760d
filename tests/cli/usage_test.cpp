#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(CommandLine, HelpShowsCommandsExamplesAndExitCodes) {
  const Finished help = run_moecast({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.err, "");
  for (const char* text : {"list", "Examples:", "Exit codes:"}) EXPECT_THAT(help.out, HasSubstr(text));
}

TEST(CommandLine, VersionNamesTheBuild) {
  const Finished version = run_moecast({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.out, StartsWith("moecast 0."));
}

TEST(CommandLine, TypoInACommandSuggestsTheNearest) {
  const Finished typo = run_moecast({"lst", "models"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_EQ(typo.out, "");
  EXPECT_EQ(typo.err, "error: lst: unknown command\nhint: did you mean \"list\"?\n");
}

TEST(CommandLine, TypoInAFlagSuggestsTheNearest) {
  const Finished typo = run_moecast({"list", "models", "--fromat", "json"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_EQ(typo.err, "error: --fromat: unknown option\nhint: did you mean \"--format\"?\n");
}

TEST(CommandLine, SearchWithoutPythonSaysWhatToInstall) {
  const Finished search = run_moecast({"search", "--space", "automoe-180", "--any", "thing"},
                                      {.environment = {{"MOECAST_PYTHON", "/no/such/python"}}});
  EXPECT_EQ(search.code, 4);
  EXPECT_THAT(search.err, HasSubstr("cannot be started"));
  EXPECT_THAT(search.err, HasSubstr("pip install"));
}

TEST(CommandLine, SearchWithoutThePackageSaysWhatToInstall) {
  const std::string python = fresh_folder("search-bare-python") + "/python";
  write_text(python, "#!/bin/sh\nexec /usr/bin/python3 -I -S \"$@\"\n");
  std::filesystem::permissions(python, std::filesystem::perms::owner_all);
  const Finished search =
      run_moecast({"search", "--space", "automoe-180"}, {.environment = {{"MOECAST_PYTHON", python}}});
  EXPECT_EQ(search.code, 4);
  EXPECT_THAT(search.err, HasSubstr("error: "));
  EXPECT_THAT(search.err, HasSubstr("has no Python package moecast"));
  EXPECT_THAT(search.err, HasSubstr("hint: pip install"));
}

TEST(CommandLine, MissingValueIsAUsageError) {
  const Finished missing = run_moecast({"list", "models", "--format"});
  EXPECT_EQ(missing.code, 2);
  EXPECT_THAT(missing.err, HasSubstr("--format"));
  EXPECT_THAT(missing.err, HasSubstr("hint: moecast list --help"));
}

TEST(CommandLine, NothingAskedPrintsTheHelpOnStandardError) {
  const Finished nothing = run_moecast({});
  EXPECT_EQ(nothing.code, 2);
  EXPECT_EQ(nothing.out, "");
  EXPECT_THAT(nothing.err, HasSubstr("Examples:"));
}

TEST(CommandLine, FullDiskOnStandardOutputIsADeviceError) {
  const Finished full = run_moecast({"list", "models"}, {.stdout_to = "/dev/full"});
  EXPECT_EQ(full.code, 4);
  EXPECT_EQ(full.err.substr(full.err.find("error:")),
            "error: standard output: cannot be written: No space left on device\nhint: free some disk space\n");
}

TEST(ListCommand, RefusesAnUnknownThing) {
  const Finished unknown = run_moecast({"list", "model"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_EQ(unknown.err, "error: list: \"model\" cannot be listed\nhint: did you mean \"models\"?\n");
}

TEST(ListCommand, RefusesADataFolderWithoutData) {
  const std::string empty = fresh_folder("no-data");
  const Finished refused = run_moecast({"list", "models", "--data", empty});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("hint: it must contain models/zoo"));
}

TEST(ListCommand, ReadsTheDataFolderOfTheEnvironment) {
  const std::string data = fresh_folder("data/models/zoo");
  write_text(data + "/one-model.json", "{}");
  const Finished listed =
      run_moecast({"list", "models", "--format", "csv"}, {.environment = {{"MOECAST_DATA", data + "/../.."}}});
  EXPECT_EQ(listed.code, 0);
  EXPECT_THAT(listed.out, HasSubstr("one-model"));
}

TEST(ListCommand, ShowsTheBackendsOfThisBuild) {
  const Finished listed = run_moecast({"list", "backends", "--format", "csv"});
  EXPECT_EQ(listed.code, 0);
  EXPECT_THAT(listed.out, StartsWith("name,library\n"));
  EXPECT_THAT(listed.out, HasSubstr("\neigen,"));
}

TEST(DoctorCommand, SaysWhatIsFoundAndWhatToDo) {
  const Finished table = run_moecast({"doctor"});
  EXPECT_EQ(table.code, 0) << table.err;
  for (const char* text : {"cpu", "memory", "huge pages", "governor", "noise", "backend eigen", "gpu"}) {
    EXPECT_THAT(table.out, HasSubstr(text));
  }
  const Finished json = run_moecast({"doctor", "--format", "json"});
  EXPECT_THAT(json.out, HasSubstr("\"advice\""));
  const Finished bare = run_moecast({"doctor"}, {.environment = {{"MOECAST_PYTHON", "/no/such/python"}}});
  EXPECT_EQ(bare.code, 0) << bare.err;
  EXPECT_THAT(bare.out, HasSubstr("missing  python package     /no/such/python"));
  EXPECT_THAT(bare.out, HasSubstr("pip install '.[search,parquet]'"));
}

}  // namespace
}  // namespace moecast::test
