#include "models/plan/offload.h"

#include <gtest/gtest.h>

#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/plan/memory.h"

namespace moecast {
namespace {

Architecture mixtral() { return load_zoo(MOECAST_SOURCE_DIR "/models/zoo", "mixtral-8x7b"); }

/// 3 * 4096 * 14336 weights of 2 bytes.
constexpr double kExpert = 3.0 * 4096 * 14336 * 2;

Workload decode() {
  Workload w;
  w.batch = 1;
  w.context = 4095;
  return w;
}

Deployment offload(std::optional<std::int64_t> resident) {
  Deployment d;
  d.offload.emplace();
  d.offload->resident = resident;
  return d;
}

TEST(Offload, RanksThatShareContextsShareExpertsToo) {
  Deployment shared = offload(4);
  shared.cp = 2;
  Deployment said = shared;
  said.moe_tp = 2;
  const MemoryBreakdown memory = memory_per_rank(mixtral(), shared, decode());
  EXPECT_EQ(memory.workspace, memory_per_rank(mixtral(), said, decode()).workspace);
  EXPECT_EQ(memory.total(), memory_per_rank(mixtral(), said, decode()).total());
}

TEST(Offload, MemoryHoldsResidentExpertsOnly) {
  const MemoryBreakdown all = memory_per_rank(mixtral(), {}, decode());
  const MemoryBreakdown five = memory_per_rank(mixtral(), offload(5), decode());
  EXPECT_NEAR((all.weights - five.weights).value(), 32 * 3 * kExpert, 1);
  // Two places for what is computed and what is on its way.
  EXPECT_NEAR((five.workspace - all.workspace).value(), 2 * kExpert, 1);
  EXPECT_EQ(memory_per_rank(mixtral(), offload(8), decode()).total(), all.total());
  EXPECT_EQ(memory_per_rank(mixtral(), offload(100), decode()).total(), all.total());
}

TEST(Offload, AsManyAsFitLeaveRoomForTheRest) {
  const Bytes capacity(80e9);
  const Deployment d = with_resident_experts(mixtral(), offload(std::nullopt), decode(), capacity);
  ASSERT_TRUE(d.offload->resident);
  EXPECT_LE(memory_per_rank(mixtral(), d, decode()).total(), capacity);
  Deployment more = d;
  ++*more.offload->resident;
  EXPECT_GT(memory_per_rank(mixtral(), more, decode()).total(), capacity);
  const Deployment roomy = with_resident_experts(mixtral(), offload(std::nullopt), decode(), Bytes(141e9));
  EXPECT_EQ(roomy.offload->resident, 8);
  EXPECT_TRUE(offloaded_layers(mixtral(), roomy, decode()).empty());
}

TEST(Offload, BytesAreSharedByAllLayers) {
  Deployment d = offload(std::nullopt);
  d.offload->resident_bytes = Bytes(32 * 3.5 * kExpert);
  EXPECT_EQ(with_resident_experts(mixtral(), d, decode(), std::nullopt).offload->resident, 3);
}

TEST(Offload, LayersAreFoldedAndSplitAsTheirExpertsAre) {
  Deployment d = offload(1);
  d.tp = 4;
  d.ep = 2;  // four experts a rank, each split over two
  const std::vector<OffloadedLayers> layers = offloaded_layers(mixtral(), d, decode());
  ASSERT_EQ(layers.size(), 1U);
  EXPECT_EQ(layers[0].layers, 32);
  EXPECT_EQ(layers[0].experts, 4);
  EXPECT_EQ(layers[0].resident, 1);
  EXPECT_DOUBLE_EQ(layers[0].expert.value(), kExpert / 2);
  EXPECT_DOUBLE_EQ(offloaded_bytes(layers).value(), 32 * 3 * kExpert / 2);
}

TEST(Offload, WithoutExpertsOrCapacityItIsRefused) {
  const Architecture dense = load_zoo(MOECAST_SOURCE_DIR "/models/zoo", "llama-3.1-8b");
  EXPECT_THROW(with_resident_experts(dense, offload(1), decode(), std::nullopt), InputError);
  EXPECT_THROW(with_resident_experts(mixtral(), offload(std::nullopt), decode(), std::nullopt), InputError);
  EXPECT_FALSE(with_resident_experts(dense, {}, decode(), std::nullopt).offload);
}

}  // namespace
}  // namespace moecast
