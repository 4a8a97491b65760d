// What the README shows is what the program prints.
#include <gtest/gtest.h>

#include <sstream>

#include "models/core/file.h"
#include "tests/cli/program.h"

namespace moecast {
namespace {

TEST(Readme, ItsFirstScreenIsRealOutput) {
  const std::string readme = read_text_file(MOECAST_SOURCE_DIR "/README.md");
  const std::string prompt = "\n$ moecast ";
  const std::size_t start = readme.find(prompt);
  ASSERT_NE(start, std::string::npos);
  const std::size_t command = start + prompt.size();
  const std::size_t output = readme.find('\n', command) + 1;
  const std::size_t end = readme.find("```", output);
  ASSERT_NE(end, std::string::npos);
  std::istringstream typed(readme.substr(command, output - 1 - command));
  std::vector<std::string> words;
  for (std::string word; typed >> word;) {
    std::erase(word, '"');
    words.push_back(word);
  }
  EXPECT_EQ(test::run_moecast(words).out, readme.substr(output, end - output));
}

}  // namespace
}  // namespace moecast
