// The reader and hwprofiles/profile.schema.json say the same about a profile: both accept, or both refuse.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "hwprofiles/profile.h"
#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

const std::string kPython = "/usr/bin/python3";

class ProfileSchema : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system((kPython + " -c 'import jsonschema' 2>/dev/null").c_str()) != 0) {
      GTEST_SKIP() << "the Debian package python3-jsonschema is not installed";
    }
    folder_ = fs::temp_directory_path() / ("moecast_schema_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  bool schema_accepts(const std::string& text) {
    const std::string path = (folder_ / "profile.json").string();
    write_file_atomically(path, text);
    const std::string root = MOECAST_SOURCE_DIR;
    return std::system((kPython + " " + root + "/tools/dev/check_json.py --schema " + root +
                        "/hwprofiles/profile.schema.json " + path + " >/dev/null")
                           .c_str()) == 0;
  }
  static bool reader_accepts(const std::string& text) {
    try {
      parse_profile_text(text, "test");
      return true;
    } catch (const InputError&) {
      return false;
    }
  }
  fs::path folder_;
};

Profile full_profile() {
  Profile profile;
  profile.name = "bench";
  profile.device = "cpu";
  profile.created = "2026-11-26";
  profile.quantities["memory_capacity"] = {24e9, "B", std::nullopt, std::nullopt, Origin::measured, "/proc/meminfo"};
  profile.quantities["memory_bandwidth"] = {15e9, "B/s", 14e9, 16e9, Origin::measured, "read benchmark"};
  profile.environment["cpu_model"] = "Test CPU";
  profile.backends.push_back(
      {"onednn", DType::bf16, "oneDNN 2.6.3", "brg:avx512", RowBucket::tile16, WeightPacking::ahead});
  profile.notes.emplace_back("noisy");
  return profile;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST_F(ProfileSchema, AcceptsWhatTheWriterWrites) {
  EXPECT_TRUE(schema_accepts(profile_text(full_profile())));
  Profile least;
  least.name = "empty";
  least.device = "gpu";
  EXPECT_TRUE(schema_accepts(profile_text(least)));
  for (const DType dtype : {DType::fp8_block, DType::mxfp8, DType::int8, DType::int4, DType::mxfp4, DType::nvfp4}) {
    Profile profile = full_profile();
    profile.backends[0].dtype = dtype;
    EXPECT_TRUE(schema_accepts(profile_text(profile))) << to_string(dtype);
  }
}

TEST_F(ProfileSchema, RefusesWhatTheReaderRefuses) {
  const std::string good = profile_text(full_profile());
  ASSERT_TRUE(reader_accepts(good));
  const std::pair<const char*, const char*> breaks[] = {
      {"\"schema_version\": 1", "\"schema_version\": 2"},
      {"\"device\": \"cpu\"", "\"device\": \"tpu\""},
      {"\"name\": \"bench\"", "\"nmae\": \"bench\""},
      {"\"unit\": \"B\"", "\"unit\": \"GB\""},
      {"\"origin\": \"measured\"", "\"origin\": \"guessed\""},
      {"\"source\": \"/proc/meminfo\"", "\"sauce\": 1"},
      {"\"row_bucket\": \"tile16\"", "\"row_bucket\": \"tile8\""},
      {"\"packing\": \"ahead\"", "\"packing\": \"later\""},
      {"\"dtype\": \"bf16\"", "\"dtype\": \"bf17\""},
      {"\"cpu_model\": \"Test CPU\"", "\"cpu_model\": 5"},
      {"24000000000.0", "\"much\""},
      {"24000000000.0", "NaN"},
  };
  for (const auto& [from, to] : breaks) {
    const std::string broken = replaced(good, from, to);
    EXPECT_FALSE(reader_accepts(broken)) << to;
    EXPECT_FALSE(schema_accepts(broken)) << to;
  }
}

}  // namespace
}  // namespace moecast
