#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/architecture/accounting.h"
#include "models/architecture/reader.h"
#include "models/core/error.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

/// Folder of published configurations, or an empty path.
fs::path config_folder() {
  const char* set = std::getenv("MOECAST_MEASUREMENTS");
  const fs::path root =
      set != nullptr ? fs::path(set) : fs::path(MOECAST_SOURCE_DIR).parent_path() / "shared" / "measurements";
  return root / "zoo" / "hf_configs";
}

TEST(ImportHuggingface, EveryPublishedConfigurationImports) {
  if (!fs::is_directory(config_folder())) GTEST_SKIP() << "no " << config_folder();
  int imported = 0;
  for (const auto& item : fs::directory_iterator(config_folder())) {
    const std::string path = item.path().string();
    Architecture model;
    ASSERT_NO_THROW(model = load_architecture(path)) << path;
    const ParameterCount count = count_parameters(model);
    EXPECT_GT(count.total, 1e8) << path;
    EXPECT_LE(count.active, count.total) << path;
    // A known family, nothing guessed.
    for (const std::string& note : model.notes) EXPECT_EQ(note.find("is not known"), std::string::npos) << path << note;
    const Json written = write_architecture(model);
    EXPECT_EQ(read_architecture(JsonView(written, path)), model) << path;
    ++imported;
  }
  EXPECT_GE(imported, 69);
}

}  // namespace
}  // namespace moecast
