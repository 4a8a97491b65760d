#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/program.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;

TEST(DescribeCommand, PrintsAModelThatReadsBackTheSame) {
  const Finished zoo = run_moecast({"describe", "mixtral-8x7b"});
  EXPECT_EQ(zoo.code, 0) << zoo.err;
  const std::string file = fresh_folder("describe") + "/mine.json";
  write_text(file, zoo.out);
  EXPECT_EQ(run_moecast({"describe", file}).out, zoo.out);
}

TEST(DescribeCommand, RefusesWhatIsNoModel) {
  const Finished typo = run_moecast({"describe", "mixtral-8x7"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_THAT(typo.err, HasSubstr("did you mean \"mixtral-8x7b\"?"));
  const std::string file = fresh_folder("describe-bad") + "/bad.json";
  write_text(file, "{\"hello\": 1}");
  const Finished bad = run_moecast({"describe", file});
  EXPECT_EQ(bad.code, 3);
  EXPECT_THAT(bad.err, HasSubstr("is not a model"));
}

}  // namespace
}  // namespace moecast::test
