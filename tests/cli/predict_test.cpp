#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;

TEST(PredictCommand, TypoInAFlagSuggestsTheNearest) {
  const Finished help = run_moecast({"predict", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("moecast predict --hidden 1024"));
  const Finished typo = run_moecast({"predict", "--modle", "x"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_THAT(typo.err, HasSubstr("did you mean \"--model\"?"));
}

TEST(PredictCommand, TheShippedProfileOfAXeonAnswers) {
  const Finished shipped = run_moecast({"predict", "--hw", "intel-xeon-processor-2cpu", "--hidden", "1024", "--width",
                                        "2048", "--experts", "16", "--top-k", "2", "--tokens", "64"});
  EXPECT_EQ(shipped.code, 0) << shipped.err;
  EXPECT_THAT(shipped.out, HasSubstr("memory_bandwidth"));
}

TEST(PredictCommand, WithoutAProfileSaysHowToMakeOne) {
  const Finished refused =
      run_moecast({"predict", "--hidden", "64", "--width", "64", "--experts", "4", "--top-k", "2", "--tokens", "8"},
                  {.environment = {{"MOECAST_PROFILES", fresh_folder("predict-no-profiles")}}});
  EXPECT_NE(refused.code, 0);
  EXPECT_EQ(refused.out, "");
  EXPECT_THAT(refused.err, HasSubstr("moecast profile"));
}

}  // namespace
}  // namespace moecast::test
