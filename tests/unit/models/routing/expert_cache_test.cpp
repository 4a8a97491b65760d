#include "models/routing/expert_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "models/core/error.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

std::vector<double> log_normal(int experts, std::uint64_t seed) {
  ExpertLoad load;
  load.kind = LoadKind::log_normal;
  load.parameter = 1;
  load.seed = seed;
  return expert_popularity(load, experts);
}

struct Counted {
  double hits = 0;
  double used = 0;
  double missed_squares = 0;
  int steps = 0;
  [[nodiscard]] double hit_ratio() const { return hits / used; }
};

/// A cache as an engine has it, executed: what is there is computed first, then the rest is fetched in random order
/// and takes the place of the expert that was used longest ago (lru), or of none (the most popular stay).
Counted execute(const std::vector<double>& popularity, int tokens, int top_k, int places, ResidencyPolicy policy,
                int steps, std::uint64_t seed) {
  std::vector<int> order(popularity.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int a, int b) {
    return popularity[static_cast<std::size_t>(a)] > popularity[static_cast<std::size_t>(b)];
  });
  std::vector<int> held(order.begin(), order.begin() + places);  // lru: the last is the one used last
  std::mt19937_64 random(seed);
  Counted counted;
  for (int step = 0; step < steps; ++step) {
    const std::vector<std::int64_t> rows =
        sample_rows(popularity, tokens, top_k, seed + static_cast<std::uint64_t>(step) + 1);
    std::vector<int> there;
    std::vector<int> missed;
    for (std::size_t e = 0; e < rows.size(); ++e) {
      if (rows[e] == 0) continue;
      const bool held_now = std::ranges::find(held, static_cast<int>(e)) != held.end();
      (held_now ? there : missed).push_back(static_cast<int>(e));
    }
    if (step >= steps / 10) {
      counted.hits += static_cast<double>(there.size());
      counted.used += static_cast<double>(there.size() + missed.size());
      counted.missed_squares += static_cast<double>(missed.size() * missed.size());
      ++counted.steps;
    }
    if (policy == ResidencyPolicy::most_popular || places == 0) continue;
    std::ranges::shuffle(there, random);
    std::ranges::shuffle(missed, random);
    for (const int e : there) {
      held.erase(std::ranges::find(held, e));
      held.push_back(e);
    }
    for (const int e : missed) {
      held.erase(held.begin());
      held.push_back(e);
    }
  }
  return counted;
}

double predicted_hit_ratio(const std::vector<double>& popularity, int tokens, int top_k, int places,
                           ResidencyPolicy policy) {
  const std::vector<double> touched = touch_probability(inclusion_probability(popularity, top_k), tokens);
  const CacheUse use = cache_use(touched, places, policy);
  return 1 - use.missed / use.touched;
}

TEST(ExpertCache, MostPopularExpertsHitAsCounted) {
  // Hits are sums of probabilities: exact but for the noise of 4,000 steps (below 0.01).
  for (const int tokens : {1, 4, 16}) {
    for (const int places : {2, 16, 48}) {
      const std::vector<double> popularity = log_normal(64, 3);
      const double counted =
          execute(popularity, tokens, 8, places, ResidencyPolicy::most_popular, 4000, 11).hit_ratio();
      EXPECT_NEAR(predicted_hit_ratio(popularity, tokens, 8, places, ResidencyPolicy::most_popular), counted, 0.01)
          << tokens << " tokens, " << places << " places";
    }
  }
}

TEST(ExpertCache, LeastRecentlyUsedHitsAsExecuted) {
  // Che's approximation, and experts of one step in random order: within 0.01 of the executed cache, whose hits are
  // known to 0.01 after 6,000 steps.
  for (const int tokens : {1, 2, 4}) {
    for (const int places : {24, 32, 48, 60}) {
      for (const std::uint64_t seed : {1U, 2U}) {
        const std::vector<double> popularity = log_normal(64, seed);
        const double counted = execute(popularity, tokens, 8, places, ResidencyPolicy::lru, 6000, seed).hit_ratio();
        EXPECT_NEAR(predicted_hit_ratio(popularity, tokens, 8, places, ResidencyPolicy::lru), counted, 0.02)
            << tokens << " tokens, " << places << " places, seed " << seed;
      }
    }
  }
}

TEST(ExpertCache, MoreUsedThanHeldStillHitsAsExecuted) {
  // The executed cache ends with the experts that it fetched last, which are the rarer ones: it hits a little less.
  for (const int places : {8, 16, 32}) {
    const std::vector<double> popularity = log_normal(64, 5);
    const double counted = execute(popularity, 32, 8, places, ResidencyPolicy::lru, 3000, 5).hit_ratio();
    EXPECT_NEAR(predicted_hit_ratio(popularity, 32, 8, places, ResidencyPolicy::lru), counted, 0.02) << places;
  }
}

TEST(ExpertCache, EqualExpertsHitAsOftenAsTheyAreHeld) {
  // 8 alike, 2 of them a token, 4 held: half, whatever the policy and however many tokens.
  const std::vector<double> alike(8, 1.0 / 8);
  for (const ResidencyPolicy policy : {ResidencyPolicy::most_popular, ResidencyPolicy::lru}) {
    for (const int tokens : {1, 3, 1000}) {
      EXPECT_NEAR(predicted_hit_ratio(alike, tokens, 2, 4, policy), 0.5, 1e-9) << tokens;
    }
  }
}

TEST(ExpertCache, HitRateIsMonotoneInItsSize_A23) {
  for (const ResidencyPolicy policy : {ResidencyPolicy::most_popular, ResidencyPolicy::lru}) {
    for (const int tokens : {1, 8, 512}) {
      const std::vector<double> popularity = log_normal(40, 9);
      double last = -1;
      for (int places = 0; places <= 40; ++places) {
        const double hits = predicted_hit_ratio(popularity, tokens, 4, places, policy);
        EXPECT_GE(hits, last - 1e-12) << places;
        last = hits;
      }
      EXPECT_DOUBLE_EQ(last, 1);
      EXPECT_DOUBLE_EQ(predicted_hit_ratio(popularity, tokens, 4, 0, policy), 0);
    }
  }
}

TEST(ExpertCache, MostPopularIsTheBestFixedChoiceAndNeverBelowLru) {
  // Independent steps: no policy that does not see the future beats keeping the most popular.
  for (const int tokens : {1, 4, 32}) {
    for (const int places : {4, 16, 40}) {
      const std::vector<double> popularity = log_normal(64, 21);
      EXPECT_GE(predicted_hit_ratio(popularity, tokens, 8, places, ResidencyPolicy::most_popular) + 1e-9,
                predicted_hit_ratio(popularity, tokens, 8, places, ResidencyPolicy::lru));
    }
  }
}

TEST(ExpertCache, PlacesAreFilledExactly) {
  const std::vector<double> touched = touch_probability(inclusion_probability(log_normal(128, 2), 8), 3);
  for (const int places : {1, 7, 64, 127}) {
    const std::vector<double> resident = residency(touched, places, ResidencyPolicy::lru);
    EXPECT_NEAR(std::accumulate(resident.begin(), resident.end(), 0.0), places, 1e-6);
    for (const double r : resident) {
      EXPECT_GE(r, 0);
      EXPECT_LE(r, 1);
    }
  }
}

TEST(ExpertCache, DistributionOfMissesSumsToOneAndHasItsMean) {
  const std::vector<double> touched = touch_probability(inclusion_probability(log_normal(32, 4), 4), 6);
  const CacheUse use = cache_use(touched, 10, ResidencyPolicy::lru);
  double sum = 0;
  double mean = 0;
  for (std::size_t m = 0; m < use.missed_distribution.size(); ++m) {
    sum += use.missed_distribution[m];
    mean += static_cast<double>(m) * use.missed_distribution[m];
  }
  EXPECT_NEAR(sum, 1, 1e-12);
  EXPECT_NEAR(mean, use.missed, 1e-9);
}

TEST(ExpertCache, TheSlowestOfTwoRanksIsWorkedByHand) {
  // Each rank misses 0 or 1 with probability 1/2: the most is 0 with 1/4, 1 with 3/4.
  const CacheUse rank{1, 0.5, {0.5, 0.5}};
  const std::vector<CacheUse> both{rank, rank};
  const CacheUse slowest = slowest_cache(both);
  EXPECT_DOUBLE_EQ(slowest.missed_distribution[0], 0.25);
  EXPECT_DOUBLE_EQ(slowest.missed_distribution[1], 0.75);
  EXPECT_DOUBLE_EQ(slowest.missed, 1);
}

TEST(ExpertCache, NeverUsedExpertsAndNegativePlaces) {
  const std::vector<double> touched{0.5, 0.0, 0.5, 0.0};
  const std::vector<double> resident = residency(touched, 3, ResidencyPolicy::lru);
  EXPECT_NEAR(resident[0], 1, 1e-9);
  EXPECT_NEAR(resident[2], 1, 1e-9);
  EXPECT_THROW(residency(touched, -1, ResidencyPolicy::lru), InputError);
}

}  // namespace
}  // namespace moecast
