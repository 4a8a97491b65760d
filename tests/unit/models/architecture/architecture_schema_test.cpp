// The reader and architecture.schema.json say the same about a model: both accept, or both refuse.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "models/architecture/reader.h"
#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

const std::string kPython = "/usr/bin/python3";
const std::string kRoot = MOECAST_SOURCE_DIR;

bool schema_accepts(const std::string& files) {
  return std::system((kPython + " " + kRoot + "/tools/dev/check_json.py --schema " + kRoot +
                      "/models/architecture/architecture.schema.json " + files + " >/dev/null")
                         .c_str()) == 0;
}

class ArchitectureSchema : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system((kPython + " -c 'import jsonschema' 2>/dev/null").c_str()) != 0) {
      GTEST_SKIP() << "the Debian package python3-jsonschema is not installed";
    }
  }
};

TEST_F(ArchitectureSchema, AcceptsEveryModelOfTheZoo) {
  std::string files;
  for (const std::string& name : zoo_names(kRoot + "/models/zoo"))
    files += " " + kRoot + "/models/zoo/" + name + ".json";
  EXPECT_FALSE(files.empty());
  EXPECT_TRUE(schema_accepts(files));
}

TEST_F(ArchitectureSchema, RefusesWhatTheReaderRefuses) {
  const fs::path folder = fs::temp_directory_path() / ("moecast_architecture_schema_" + std::to_string(getpid()));
  fs::create_directories(folder);
  const std::string file = (folder / "model.json").string();
  for (const char* from : {R"("repeat": 1)", R"("repeat": 0)", R"("repaet": 1)", R"("repeat": "1")"}) {
    const std::string text = std::string(R"({"moecast_architecture": 1, "hidden": 8, "decoder": [{)") + from +
                             R"(, "blocks": [{"type": "ffn", "ffn": {"width": 8}}]}]})";
    write_file_atomically(file, text);
    bool accepted = true;
    try {
      load_architecture_text(text, "model.json");
    } catch (const InputError&) {
      accepted = false;
    }
    EXPECT_EQ(accepted, std::string(from) == R"("repeat": 1)");
    EXPECT_EQ(schema_accepts(file), accepted) << from;
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace moecast
