#pragma once
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace moecast {

/// Which experts of a layer stay on a device that cannot hold them all.
/// most_popular: always the same (what counting uses ends in); lru: the last ones that were used.
enum class ResidencyPolicy { most_popular, lru };

std::string_view to_string(ResidencyPolicy policy);
std::optional<ResidencyPolicy> find_residency_policy(std::string_view text);

/// P(a step of so many tokens uses an expert) of each expert, tokens choosing independently.
/// @param inclusion  of a token. @param tokens  at least 0; may be a mean.
std::vector<double> touch_probability(std::span<const double> inclusion, double tokens);

/// P(an expert is on the device when a step begins), steps being independent of each other.
///
/// most_popular is exact. lru: experts are ordered by the step that used them last, those of one step in random order;
/// a step computes what is there before it fetches the rest. Che's approximation: all experts leave at the same age,
/// here in whole steps and a share of one, at which `places` are expected to be held. Exact where experts are alike.
/// @param touched  [experts]. @param places  of the device; as many experts or more: all stay.
std::vector<double> residency(std::span<const double> touched, int places, ResidencyPolicy policy);

/// What a step asks of the cache of one layer.
struct CacheUse {
  double touched = 0;                       ///< experts used, mean
  double missed = 0;                        ///< of these, not on the device
  std::vector<double> missed_distribution;  ///< P(m experts are missed), m = 0, 1, ...
};

/// Experts are missed independently of each other: without correlation between choices of a token, which makes the
/// spread of few tokens somewhat too wide.
CacheUse cache_use(std::span<const double> touched, int places, ResidencyPolicy policy);

/// Of several ranks that wait for each other: what the one that misses most misses. Sums of touched and missed are of
/// all ranks.
CacheUse slowest_cache(std::span<const CacheUse> ranks);

}  // namespace moecast
