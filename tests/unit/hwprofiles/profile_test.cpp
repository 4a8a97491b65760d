#include "hwprofiles/profile.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

Profile example() {
  Profile profile;
  profile.name = "bench";
  profile.device = "cpu";
  profile.created = "2026-11-26";
  profile.quantities["memory_capacity"] = {24e9, "B", std::nullopt, std::nullopt, Origin::measured, "/proc/meminfo"};
  profile.quantities["memory_bandwidth"] = {15e9, "B/s", 14e9, 16e9, Origin::measured, "read benchmark"};
  profile.environment["cpu_model"] = "Test CPU";
  profile.backends.push_back({"onednn", DType::bf16, "oneDNN 2.6.3", "brg:avx512_core_amx_bf16", RowBucket::tile16,
                              WeightPacking::every_call});
  profile.notes.emplace_back("noisy");
  return profile;
}

Measurement gemm_row() {
  Measurement row;
  row.point.backend = "onednn";
  row.point.dtype = DType::bf16;
  row.point.shape.m = 7;
  row.point.shape.n = 640;
  row.point.shape.k = 512;
  row.point.footprint = Bytes(1e8);
  row.latency = Seconds(2.5e-5);
  row.low = Seconds(2.4e-5);
  row.high = Seconds(2.75e-5);
  row.samples = 12;
  row.preempted = 1;
  row.round_s = {2.4e-5, 2.5e-5, 2.75e-5};
  row.raw = {{0, 60, 2.4e-5, 2.3e-5, 0}, {1, 61, 2.5e-5, 2.4e-5, 0}, {2, 60, 2.75e-5, 2.5e-5, 3}};
  return row;
}

class Folder : public testing::Test {
 protected:
  void SetUp() override { path_ = (fs::path(testing::TempDir()) / ("profile-" + std::to_string(getpid()))).string(); }
  void TearDown() override { fs::remove_all(path_); }
  std::string path_;
};

TEST(ProfileText, RoundTrips) {
  const std::string text = profile_text(example());
  EXPECT_EQ(profile_text(parse_profile_text(text, "p")), text);
  const Profile read = parse_profile_text(text, "p");
  EXPECT_EQ(read.backends[0].row_bucket, RowBucket::tile16);
  EXPECT_EQ(read.backends[0].packing, WeightPacking::every_call);
  EXPECT_EQ(read.find("memory_bandwidth")->high, 16e9);
  EXPECT_EQ(read.find("nothing"), nullptr);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(ParseProfile, RefusesWhatIsWrongAndSaysWhere) {
  const std::string text = profile_text(example());
  const auto fails = [&](const std::string& from, const std::string& to, const std::string& pointer) {
    try {
      parse_profile_text(replaced(text, from, to), "hw.json");
      ADD_FAILURE() << "accepted " << to;
    } catch (const InputError& error) {
      EXPECT_NE(error.where().find(pointer), std::string::npos) << error.what();
    }
  };
  fails("\"schema_version\": 1", "\"schema_version\": 9", "/schema_version");
  fails("\"B/s\"", "\"GBs\"", "/quantities/memory_bandwidth/unit");
  fails("\"high\": 16000000000.0", "\"high\": 1.0", "/quantities/memory_bandwidth");
  fails("\"device\": \"cpu\"", "\"device\": \"abacus\"", "/device");
  fails("\"tile16\"", "\"tile17\"", "/backends/0/row_bucket");
  fails("\"every_call\"", "\"sometimes\"", "/backends/0/packing");
  fails("\"notes\"", "\"nots\"", "hw.json");
  fails("\"origin\": \"measured\"", "\"origin\": \"guessed\"", "/origin");
}

TEST_F(Folder, KeepsProfileAndSamples) {
  write_profile(path_, example());
  EXPECT_EQ(read_profile(path_).name, "bench");
  Measurement norm = gemm_row();
  norm.point.kind = OperatorKind::norm;
  norm.point.shape = {};
  norm.point.shape.m = 3;
  norm.point.shape.hidden = 64;
  write_samples(path_, {gemm_row(), norm});
  const auto rows = read_samples(path_);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].point, gemm_row().point);
  EXPECT_EQ(rows[0].round_s, gemm_row().round_s);
  EXPECT_EQ(rows[0].raw, gemm_row().raw);
  EXPECT_EQ(rows[1].point.shape.hidden, 64);
}

TEST_F(Folder, RefusesATruncatedSampleFile) {
  write_samples(path_, std::vector<Measurement>(500, gemm_row()));
  const std::string file = path_ + "/samples/gemm.csv.gz";
  fs::resize_file(file, fs::file_size(file) / 2);
  EXPECT_THROW(read_samples(path_), InputError);
}

TEST(ParseSamples, NamesLineAndColumn) {
  const std::string good = samples_text(OperatorKind::gemm, {gemm_row()});
  ASSERT_EQ(parse_samples_text(OperatorKind::gemm, good, "s.csv").size(), 1U);
  const auto fails = [&](const std::string& from, const std::string& to, const std::string& column) {
    try {
      parse_samples_text(OperatorKind::gemm, replaced(good, from, to), "s.csv");
      ADD_FAILURE() << "accepted " << to;
    } catch (const InputError& error) {
      EXPECT_NE(error.where().find("line 2, column " + column), std::string::npos) << error.what();
    }
  };
  fails(",2.5e-05,2.4e-05", ",nan,2.4e-05", "latency_s");
  fails(",2.5e-05,2.4e-05", ",-1,2.4e-05", "latency_s");
  fails(",2.5e-05,2.4e-05", ",0,0", "latency_s");
  fails(",2.5e-05,2.4e-05", ",9,2.4e-05", "latency_s");
  fails(",640,", ",wide,", "n");
  fails(",100000000,", ",1e300,", "footprint_bytes");
  fails("onednn,bf16", "onednn,bf17", "dtype");
  EXPECT_THROW(parse_samples_text(OperatorKind::norm, good, "s.csv"), InputError);
  EXPECT_THROW(parse_samples_text(OperatorKind::gemm, "", "s.csv"), InputError);
  EXPECT_THROW(parse_samples_text(OperatorKind::gemm, good + "a,b\n", "s.csv"), InputError);
}

TEST(WriteProfile, SaysWhenTheFolderCannotBeMade) {
  EXPECT_THROW(write_profile("/proc/nowhere/profile", example()), DeviceError);
}

}  // namespace
}  // namespace moecast
