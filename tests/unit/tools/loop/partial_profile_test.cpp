#include "tools/loop/partial_profile.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "models/core/error.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

Profile machine(const std::string& cpu) {
  Profile profile;
  profile.name = "a";
  profile.device = "cpu";
  profile.created = "2026-11-26";
  profile.environment = {{"cpu_model", cpu}, {"isa", "avx2"}};
  return profile;
}

Measurement row(std::int64_t m, std::vector<double> rounds) {
  Measurement measured;
  measured.point.backend = "onednn";
  measured.point.shape.m = m;
  measured.point.shape.n = measured.point.shape.k = 64;
  measured.point.output_footprint = Bytes(1e6);
  measured.latency = Seconds(rounds.front());
  measured.low = measured.high = measured.latency;
  measured.samples = static_cast<int>(rounds.size());
  measured.round_s = std::move(rounds);
  return measured;
}

class PartialProfileTest : public ::testing::Test {
 protected:
  PartialProfileTest() : folder_(fs::temp_directory_path() / ("moecast_partial_" + std::to_string(getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~PartialProfileTest() override { fs::remove_all(folder_); }
  [[nodiscard]] std::string at(const std::string& name) const { return (folder_ / name).string(); }
  fs::path folder_;
};

TEST_F(PartialProfileTest, GoesOnWhereAKilledRunStopped) {
  PartialProfile(at("p"), machine("X")).save({row(1, {1e-3, 3e-3}), row(2, {1e-3})});
  const PartialProfile next(at("p"), machine("X"));
  ASSERT_EQ(next.kept().size(), 2U);
  const std::vector<KernelPoint> wanted{row(1, {1}).point, row(2, {1}).point, row(3, {1}).point};
  const std::vector<KernelPoint> missing = next.missing(wanted, 2);
  ASSERT_EQ(missing.size(), 2U);
  EXPECT_EQ(missing[0].shape.m, 2);
  EXPECT_EQ(missing[1].shape.m, 3);
  const std::vector<Measurement> merged = next.with({row(2, {5e-3, 3e-3})});
  ASSERT_EQ(merged.size(), 2U);
  EXPECT_EQ(merged[1].round_s.size(), 3U);
  EXPECT_DOUBLE_EQ(merged[1].latency.value(), 3e-3);
  EXPECT_LT(merged[1].low.value(), 1e-3);
  EXPECT_GT(merged[1].high.value(), 5e-3);
  EXPECT_EQ(merged[1].samples, 3);
}

TEST_F(PartialProfileTest, DoesNotMixMachines) {
  PartialProfile(at("p"), machine("X")).save({row(1, {1e-3})});
  EXPECT_TRUE(PartialProfile(at("p"), machine("Y")).kept().empty());
}

TEST_F(PartialProfileTest, ForgetsTheSamplesOfAnotherMachine) {
  PartialProfile(at("p"), machine("X")).save({row(1, {1e-3})});
  PartialProfile(at("p"), machine("Y")).prepare();
  EXPECT_TRUE(PartialProfile(at("p"), machine("Y")).kept().empty());
}

TEST_F(PartialProfileTest, SaysWhatIsBroken) {
  PartialProfile(at("p"), machine("X")).save({row(1, {1e-3})});
  std::ofstream(at("p.partial/profile.json")) << "{";
  EXPECT_THROW(PartialProfile(at("p"), machine("X")), InputError);
}

TEST_F(PartialProfileTest, PublishesWholeProfilesOnly) {
  const PartialProfile partial(at("p"), machine("X"));
  partial.save({row(1, {1e-3})});
  fs::create_directories(at("p"));
  std::ofstream(at("p/old")) << "old";
  publish_profile(partial.folder(), at("p"));
  EXPECT_TRUE(fs::exists(at("p/profile.json")));
  EXPECT_FALSE(fs::exists(at("p/old")));
  EXPECT_FALSE(fs::exists(at("p.partial")));
  EXPECT_FALSE(fs::exists(at("p.old")));
}

TEST_F(PartialProfileTest, KeepsTheOldProfileWhenTheNewOneCannotMove) {
  fs::create_directories(at("p"));
  std::ofstream(at("p/old")) << "old";
  EXPECT_THROW(publish_profile(at("missing"), at("p")), DeviceError);
  EXPECT_TRUE(fs::exists(at("p/old")));
}

}  // namespace
}  // namespace moecast
