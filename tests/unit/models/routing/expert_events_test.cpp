#include "models/routing/expert_events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "models/core/error.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

using Kind = ExpertEvent::Kind;

ExpertEvent event(Kind kind, std::optional<int> expert = std::nullopt) {
  ExpertEvent e;
  e.kind = kind;
  e.expert = expert;
  return e;
}

std::vector<double> skewed(int experts, std::uint64_t seed) {
  ExpertLoad load;
  load.kind = LoadKind::log_normal;
  load.parameter = 1;
  load.seed = seed;
  return expert_popularity(load, experts);
}

double fullest(const ExpertSet& set) {
  const std::vector<double> rows = set.rows_per_rank(1000);
  return *std::ranges::max_element(rows);
}

TEST(ExpertSet, GrowingThenPruningTheSameExpertIsAsBefore_A22) {
  for (const PrunedRows pruned : {PrunedRows::rerouted, PrunedRows::dropped}) {
    ExpertSet set(skewed(64, 1), 8, 4, 72, pruned);
    const std::vector<double> before = set.popularity_of_places();
    const std::vector<double> rows = set.rows_per_rank(1000);
    const ExpertChange grown = set.apply(event(Kind::add));
    EXPECT_EQ(set.experts(), 65);
    EXPECT_EQ(set.places(), 9);
    EXPECT_TRUE(grown.places_changed);
    ASSERT_EQ(grown.moves.size(), 1U);
    EXPECT_FALSE(grown.moves[0].from);
    const ExpertChange pruned_again = set.apply(event(Kind::remove, grown.expert));
    EXPECT_TRUE(pruned_again.moves.empty());
    EXPECT_EQ(set.places(), 8);
    EXPECT_EQ(set.popularity_of_places(), before);
    if (pruned == PrunedRows::rerouted) {
      EXPECT_EQ(set.rows_per_rank(1000), rows);
    }
  }
}

TEST(ExpertSet, PruningTheLeastLoadedNeverRaisesTheFullestDevice_A22) {
  // What the pruned expert's tokens lose is lost: the rows of other experts stay as they are.
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    ExpertSet set(skewed(32, seed), 4, 2, std::nullopt, PrunedRows::dropped);
    double last = fullest(set);
    for (int i = 0; i < 30; ++i) {
      EXPECT_TRUE(set.apply(event(Kind::remove)).moves.empty());
      EXPECT_LE(fullest(set), last * (1 + 1e-12)) << "seed " << seed << ", " << i << " pruned";
      last = fullest(set);
    }
  }
}

TEST(ExpertSet, ReroutedRowsRaiseADeviceByNoMoreThanTheyAre) {
  // Every remaining expert grows by at most 1 / (1 - p) where one choice in 1 / p was the pruned one's.
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<double> popularity = skewed(16, seed);
    ExpertSet set(popularity, 1, 1);
    const double least = *std::ranges::min_element(popularity);
    set.apply(event(Kind::remove));
    EXPECT_NEAR(fullest(set), 1000, 1e-6);  // all rows are still there
    ExpertSet two(popularity, 2, 1);
    const double before = fullest(two);
    two.apply(event(Kind::remove));
    EXPECT_LE(fullest(two), before / (1 - least) * (1 + 1e-9));
  }
}

TEST(ExpertSet, ANewExpertGoesWhereThereIsRoomThenWhereRowsAreFew) {
  ExpertSet set({4, 4, 1, 1, 2, 2}, 3, 1);
  EXPECT_EQ(set.apply(event(Kind::add)).moves[0].to, 1);  // all hold two: the fewest rows
  EXPECT_EQ(set.apply(event(Kind::add)).moves[0].to, 2);
  EXPECT_EQ(set.apply(event(Kind::add)).moves[0].to, 0);
  EXPECT_EQ(set.places(), 3);
}

TEST(ExpertSet, ACopyComesFromTheRankThatHoldsIt) {
  ExpertSet set({4, 4, 1, 1}, 2, 1);
  ExpertEvent copy = event(Kind::add);
  copy.copy_of = 0;
  copy.popularity = 2;
  const ExpertChange change = set.apply(copy);
  EXPECT_EQ(change.moves[0].from, 0);
  EXPECT_EQ(change.moves[0].to, 1);
  // Twice the mean of 10 / 4.
  EXPECT_THAT(set.popularity_of_places(), testing::ElementsAre(4, 4, 0, 1, 1, 5));
}

TEST(ExpertSet, RebalancingFreesThePlacesThatPruningLeft) {
  ExpertSet set({8, 8, 8, 1, 1, 1}, 2, 1);  // three places a rank
  set.apply(event(Kind::remove, 3));
  EXPECT_FALSE(set.apply(event(Kind::remove, 4)).places_changed);  // 3 and 1: three places still
  const ExpertChange change = set.apply(event(Kind::rebalance));
  ASSERT_EQ(change.moves.size(), 1U);  // 8 + 1 and 8 + 8: the second 8 moves
  EXPECT_EQ(change.moves[0].from, 0);
  EXPECT_EQ(change.moves[0].to, 1);
  EXPECT_TRUE(change.places_changed);
  EXPECT_EQ(set.places(), 2);
}

TEST(ExpertSet, RebalancingEvensRowsAndThenMovesNothing) {
  ExpertSet set({8, 7, 1, 1}, 2, 1);
  EXPECT_DOUBLE_EQ(fullest(set), 1000 * 15.0 / 17);
  const ExpertChange change = set.apply(event(Kind::rebalance));
  EXPECT_EQ(change.moves.size(), 2U);  // 8 + 1 and 7 + 1
  EXPECT_NEAR(fullest(set), 1000 * 9.0 / 17, 1e-9);
  EXPECT_TRUE(set.apply(event(Kind::rebalance)).moves.empty());
}

TEST(ExpertSet, RowsAreConservedWhateverHappens) {
  std::mt19937_64 random(7);
  ExpertSet set(skewed(24, 3), 4, 3);
  for (int i = 0; i < 200; ++i) {
    const auto draw = random() % 3;
    if (draw == 0 || set.experts() < 8) {
      set.apply(event(Kind::add));
    } else {
      set.apply(event(draw == 1 ? Kind::remove : Kind::rebalance));
    }
    const std::vector<double> rows = set.rows_per_rank(100);
    EXPECT_NEAR(std::accumulate(rows.begin(), rows.end(), 0.0), 300, 1e-6);
  }
}

TEST(ExpertSet, WhatCannotHappenIsNamed) {
  ExpertSet set({1, 1, 1, 1}, 2, 2, 5);
  EXPECT_THROW(set.apply(event(Kind::remove, 9)), InputError);
  set.apply(event(Kind::add));
  EXPECT_THROW(set.apply(event(Kind::add)), InputError);
  for (int i = 0; i < 3; ++i) set.apply(event(Kind::remove));
  EXPECT_THROW(set.apply(event(Kind::remove)), InputError);
  EXPECT_THROW(ExpertSet({1, 1, 1}, 2, 1), InputError);
}

TEST(ExpertEvents, AreReadAsWritten) {
  const ExpertEvents all = parse_expert_events(
      R"({"moecast_expert_events": 1, "max_experts": 64, "pruned_rows": "dropped", "events": [
           {"step": 1, "add": {"popularity": 0.5, "copy_of": 3}}, {"step": 1, "remove": "least_loaded"},
           {"step": 9, "remove": 7}, {"step": 9, "rebalance": true}]})",
      "events.json");
  EXPECT_EQ(all.most, 64);
  EXPECT_EQ(all.pruned, PrunedRows::dropped);
  ASSERT_EQ(all.events.size(), 4U);
  EXPECT_EQ(all.events[0].copy_of, 3);
  EXPECT_DOUBLE_EQ(all.events[0].popularity, 0.5);
  EXPECT_FALSE(all.events[1].expert);
  EXPECT_EQ(all.events[2].expert, 7);
  EXPECT_EQ(all.events[3].kind, Kind::rebalance);
}

TEST(ExpertEvents, WrongFilesAreRefusedWithTheirPointer) {
  const std::vector<std::pair<std::string, std::string>> all{
      {R"({"events": []})", "moecast_expert_events"},
      {R"({"moecast_expert_events": 1})", "events"},
      {R"({"moecast_expert_events": 1, "events": [{"step": 1}]})", "/events/0"},
      {R"({"moecast_expert_events": 1, "events": [{"step": -1, "add": {}}]})", "/events/0/step"},
      {R"({"moecast_expert_events": 1, "events": [{"step": 1, "add": {}, "remove": 1}]})", "/events/0"},
      {R"({"moecast_expert_events": 1, "events": [{"step": 2, "add": {}}, {"step": 1, "add": {}}]})", "/events/1"},
      {R"({"moecast_expert_events": 1, "events": [{"step": 2, "remove": "most"}]})", "/events/0/remove"},
      {R"({"moecast_expert_events": 1, "events": [{"step": 2, "rebalance": false}]})", "/events/0/rebalance"},
      {R"({"moecast_expert_events": 1, "pruned_rows": "kept", "events": []})", "/pruned_rows"}};
  for (const auto& [text, pointer] : all) {
    try {
      parse_expert_events(text, "e.json");
      ADD_FAILURE() << "accepted " << text;
    } catch (const InputError& error) {
      EXPECT_THAT(std::string(error.what()), testing::HasSubstr(pointer)) << text;
    }
  }
}

}  // namespace
}  // namespace moecast
