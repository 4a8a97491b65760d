#pragma once
#include <cstdint>
#include <span>
#include <unordered_map>

namespace moecast {

/// What the experts of one rank get in one layer: all that the cost of a fused MoE kernel needs of the routing.
struct RankLoad {
  double rows = 0;      ///< (token, slot) pairs
  double distinct = 0;  ///< experts with at least one row
  double fullest = 0;   ///< rows of the fullest expert
};

/// Any histogram of rows, one entry an expert of the rank.
RankLoad rank_load_of(std::span<const double> rows_per_expert);

/// Load of the rank that is timed in published kernel tables (aiconfigurator's two laws).
///
/// @param alpha  0: balanced, a strided assignment of which rank 0 is timed. Above 0: one draw an expert from the
/// density x^-alpha on [1, 0.8 T] where T k > E, else on [0.01, 2], scaled to T k rows of at most T an expert; what
/// rounding and the cap left over goes in equal shares to the ranks, there to the emptiest (fullest) expert; the rank
/// with the most rows is timed. Mean of sixteen draws with a fixed seed.
/// @throws InputError unless 1 <= top_k <= experts, ranks divides experts, and 1 <= tokens <= 2^40.
RankLoad timed_rank_load(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks,
                         double alpha);

/// Load of the timed rank where all k slots of every token that comes to it are computed there.
RankLoad with_whole_tokens(const RankLoad& load, std::int64_t tokens, std::int64_t top_k, double alpha);

/// The same, each asked for once.
class RankLoadCache {
 public:
  RankLoad operator()(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks, double alpha);
  /// group_limited_load with DeepSeek-V3's groups.
  RankLoad grouped(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, std::int64_t ranks, double alpha);

 private:
  struct Key {
    std::int64_t tokens, top_k, experts, ranks;
    double alpha;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Hash {
    std::size_t operator()(const Key& key) const noexcept;
  };
  std::unordered_map<Key, RankLoad, Hash> known_, grouped_;
};

}  // namespace moecast
