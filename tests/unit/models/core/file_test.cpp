// Files are replaced whole; what is no file is written into.
#include "models/core/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "models/core/error.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

class WrittenFile : public testing::Test {
 protected:
  WrittenFile() {
    std::string pattern = (fs::temp_directory_path() / "moecast-file-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~WrittenFile() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  fs::path folder_;
};

TEST_F(WrittenFile, ReplacesAFileAndLeavesNothingBeside) {
  const std::string path = folder_ / "a";
  write_file_atomically(path, "one");
  write_file_atomically(path, "two");
  EXPECT_EQ(read_text_file(path), "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(WrittenFile, ReachesWhatALinkPointsTo) {
  write_file_atomically(folder_ / "real", "one");
  fs::create_symlink(folder_ / "real", folder_ / "link");
  write_file_atomically(folder_ / "link", "two");
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(read_text_file(folder_ / "real"), "two");
}

TEST_F(WrittenFile, GoesIntoAPipeWhichStaysOne) {
  const std::string path = folder_ / "pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const int reader = open(path.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  write_file_atomically(path, "through");
  std::string got(16, '\0');
  const ssize_t size = read(reader, got.data(), got.size());
  close(reader);
  EXPECT_EQ(got.substr(0, static_cast<std::size_t>(std::max<ssize_t>(0, size))), "through");
  EXPECT_TRUE(fs::is_fifo(path));
}

TEST_F(WrittenFile, AFullDeviceIsSaidAndStaysADevice) {
  // Through a link in a folder of its own, which is all that a mistake would replace.
  const fs::path full = folder_ / "full";
  fs::create_symlink("/dev/full", full);
  if (!fs::is_character_file(full)) GTEST_SKIP() << "this machine has no /dev/full";
  try {
    write_file_atomically(full, "anything");
    FAIL() << "a full device took it";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("No space left on device"), std::string::npos) << error.what();
  }
  EXPECT_TRUE(fs::is_symlink(full));
  EXPECT_TRUE(fs::is_character_file(full));
}

}  // namespace
}  // namespace moecast
