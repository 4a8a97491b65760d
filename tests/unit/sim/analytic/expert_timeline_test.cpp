#include "sim/analytic/expert_timeline.h"

#include <gtest/gtest.h>

#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "sim/step/gpu_predictor.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;

const Architecture& olmoe() {
  static const Architecture loaded = load_zoo(kRoot + "/models/zoo", "olmoe-1b-7b");  // 64 experts, 16 layers
  return loaded;
}

const Predictor& h100() {
  static const std::unique_ptr<Predictor> loaded =
      load_gpu_predictor(kRoot + "/hwprofiles/h100-sxm", kRoot + "/models/plan/engines");
  return *loaded;
}

/// 3 * 2048 * 1024 weights of 2 bytes in 16 layers.
constexpr double kExpert = 16 * 3.0 * 2048 * 1024 * 2;

ExpertEvent at(std::int64_t step, ExpertEvent::Kind kind, std::optional<int> expert = std::nullopt) {
  ExpertEvent event;
  event.step = step;
  event.kind = kind;
  event.expert = expert;
  return event;
}

TransitionCosts costs() {
  TransitionCosts c;
  c.host = BytesPerSecond(50e9);
  c.ranks = BytesPerSecond(300e9);
  c.copy = BytesPerSecond(2e12);
  c.recapture = Seconds(10);
  return c;
}

Workload decode(LoadKind kind) {
  Workload w;
  w.batch = 32;
  w.context = 512;
  w.load.kind = kind;
  w.load.parameter = 1;
  return w;
}

ExpertEvents grow_then_prune() {
  ExpertEvents events;
  events.events = {at(100, ExpertEvent::Kind::add), at(200, ExpertEvent::Kind::remove, 64)};
  return events;
}

TEST(ExpertTimeline, GrowThenPruneReturnsToTheInitialLatency_A22_D10) {
  for (const int ep : {1, 8}) {
    for (const LoadKind kind : {LoadKind::uniform, LoadKind::log_normal, LoadKind::zipf}) {
      Deployment d;
      d.ep = d.dp = ep;
      const auto timeline =
          expert_timeline(h100(), olmoe(), d, decode(kind), grow_then_prune(), costs(), kind == LoadKind::log_normal);
      ASSERT_EQ(timeline.size(), 3U);
      for (const TimelineEntry& entry : timeline) ASSERT_EQ(entry.steady.status, Status::ok) << entry.steady.reason;
      EXPECT_EQ(timeline[0].experts, 64);
      EXPECT_EQ(timeline[1].experts, 65);
      EXPECT_NE(timeline[1].steady.latency->value(), timeline[0].steady.latency->value());
      EXPECT_EQ(timeline[2].steady.latency->value(), timeline[0].steady.latency->value()) << ep;
      EXPECT_EQ(timeline[2].fullest_rows, timeline[0].fullest_rows);
    }
  }
}

TEST(ExpertTimeline, TheStartIsWhatPredictSays) {
  const auto timeline = expert_timeline(h100(), olmoe(), {}, decode(LoadKind::log_normal), {}, costs(), true);
  ASSERT_EQ(timeline.size(), 1U);
  EXPECT_EQ(timeline[0].steady.latency->value(),
            h100().predict(olmoe(), {}, decode(LoadKind::log_normal)).latency->value());
}

TEST(ExpertTimeline, MovedBytesAreThoseOfTheExpert_A22) {
  Deployment d;
  d.tp = 8;
  d.ep = 4;  // sixteen experts a rank, each over two GPUs
  const auto timeline =
      expert_timeline(h100(), olmoe(), d, decode(LoadKind::uniform), grow_then_prune(), costs(), false);
  EXPECT_DOUBLE_EQ(timeline[1].moved.value(), kExpert);
  EXPECT_DOUBLE_EQ(timeline[2].moved.value(), 0);
  // Each of the two GPUs fetches its half: 100.7 MB at 50 GB/s.
  EXPECT_NEAR(timeline[1].transfer->value(), kExpert / 2 / 50e9, 1e-12);
  EXPECT_NEAR(timeline[1].transition->value(), kExpert / 2 / 50e9 + 10, 1e-9);
  EXPECT_DOUBLE_EQ(timeline[2].transfer->value(), 0);
}

TEST(ExpertTimeline, ACopyPassesTheLinkOfItsRank) {
  Deployment d;
  d.ep = d.dp = 8;
  ExpertEvents events;
  events.events = {at(1, ExpertEvent::Kind::add)};
  events.events[0].copy_of = 63;  // of rank 7; uniform: the new one goes to rank 0
  const auto timeline = expert_timeline(h100(), olmoe(), d, decode(LoadKind::uniform), events, costs(), false);
  EXPECT_EQ(timeline[1].change.moves[0].from, 7);
  EXPECT_EQ(timeline[1].change.moves[0].to, 0);
  EXPECT_NEAR(timeline[1].transfer->value(), kExpert / 300e9, 1e-12);
  d.ep = d.dp = 1;  // read and written where it is
  const auto alone = expert_timeline(h100(), olmoe(), d, decode(LoadKind::uniform), events, costs(), false);
  EXPECT_NEAR(alone[1].transfer->value(), 2 * kExpert / 2e12, 1e-12);
}

TEST(ExpertTimeline, GraphsAreCapturedAgainOnlyWherePlacesChange) {
  Deployment d;
  d.ep = d.dp = 8;
  ExpertEvents events;
  events.events = {at(1, ExpertEvent::Kind::add), at(2, ExpertEvent::Kind::add)};
  const auto timeline = expert_timeline(h100(), olmoe(), d, decode(LoadKind::uniform), events, costs(), false);
  EXPECT_EQ(timeline[1].places, 9);
  EXPECT_DOUBLE_EQ(timeline[1].recapture->value(), 10);
  EXPECT_EQ(timeline[2].places, 9);
  EXPECT_DOUBLE_EQ(timeline[2].recapture->value(), 0);
  // The second one takes a free place: nearly the same rows on the fullest rank.
  EXPECT_NEAR(timeline[2].steady.latency->value() / timeline[1].steady.latency->value(), 1, 0.01);
}

TEST(ExpertTimeline, WhatNobodyKnowsIsUnknownAndNotZero) {
  TransitionCosts unknown;
  const auto timeline =
      expert_timeline(h100(), olmoe(), {}, decode(LoadKind::uniform), grow_then_prune(), unknown, false);
  EXPECT_FALSE(timeline[1].transfer);
  EXPECT_FALSE(timeline[1].recapture);
  EXPECT_FALSE(timeline[1].transition);
  EXPECT_NE(timeline[1].unknown.find("--host-link"), std::string::npos);
  EXPECT_TRUE(timeline[2].transfer);  // nothing moves
  EXPECT_NE(timeline[2].unknown.find("--recapture"), std::string::npos);
  Profile cpu;
  cpu.device = "cpu";
  EXPECT_FALSE(transition_costs(cpu, std::nullopt, std::nullopt, 2).host);
  EXPECT_FALSE(transition_costs(cpu, std::nullopt, std::nullopt, 2).replays_graphs);
}

TEST(ExpertTimeline, ACpuReplaysNoGraphs) {
  const std::unique_ptr<Predictor> xeon = Predictor::load(kRoot + "/hwprofiles/intel-xeon-processor-2cpu");
  const Profile profile = read_profile(kRoot + "/hwprofiles/intel-xeon-processor-2cpu");
  Deployment d;
  d.threads = 2;
  const auto timeline = expert_timeline(*xeon, olmoe(), d, decode(LoadKind::zipf), grow_then_prune(),
                                        transition_costs(profile, BytesPerSecond(2e9), std::nullopt, 2), false);
  ASSERT_TRUE(timeline[1].steady.latency) << timeline[1].steady.reason;
  EXPECT_NEAR(timeline[1].transition->value(), kExpert / 2e9, 1e-9);
  EXPECT_EQ(timeline[2].steady.latency->value(), timeline[0].steady.latency->value());
}

TEST(ExpertTimeline, ModelsWhoseExpertsCannotChangeAreRefused) {
  const auto of = [&](const char* name) {
    return expert_timeline(h100(), load_zoo(kRoot + "/models/zoo", name), {}, decode(LoadKind::uniform),
                           grow_then_prune(), costs(), false);
  };
  EXPECT_THROW(of("llama-3.1-8b"), InputError);
  EXPECT_THROW(of("ernie-4.5-vl-28b-a3b"), InputError);
  EXPECT_THROW(of("deepseek-v3"), InputError);  // 257 experts in 8 groups
}

}  // namespace
}  // namespace moecast
