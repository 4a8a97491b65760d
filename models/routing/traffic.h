#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/routing/assignment.h"
#include "models/routing/byte_matrix.h"
#include "models/routing/placement.h"

namespace moecast {

/// How many copies of a token travel: one a selected expert (low latency), one a distinct rank, or one a distinct node,
/// whose rank of the sender's index passes it on to the node's other ranks.
enum class Deduplication { per_expert, per_rank, per_node };

struct TrafficOptions {
  Deduplication deduplication = Deduplication::per_rank;
  int ranks_per_node = 8;         ///< last node may be smaller
  double dispatch_row_bytes = 0;  ///< of one copy of a token
  /// Tokens whose own rank holds a copy of their expert stay there (shadowed experts); else copies take turns.
  bool own_copy_first = false;
};

/// What dispatch moves, in rows; the way back is the transposed matrix. Rows that stay on their rank are on the
/// diagonal of `inside`.
struct Traffic {
  ByteMatrix inside{1};  ///< bytes between ranks of one node
  ByteMatrix across{1};  ///< bytes between ranks of different nodes
  std::vector<double> rows_per_expert;
  std::vector<double> rows_per_rank;    ///< (token, slot) pairs that the rank's experts compute
  std::vector<double> tokens_per_rank;  ///< copies that arrive at the rank, its own included
  [[nodiscard]] ByteMatrix all() const;
};

/// Counts assignments. Token t starts on rank t * ranks / tokens (equal shares, in order). Keeps its buffers.
///
/// Tokens of an expert with copies go to its copies in turn. Where turns start at a copy that is drawn for each expert,
/// every token is as likely to go to each copy, whatever becomes of its other experts: the mean over starts is
/// expected_traffic, while the copies of one sample share their rows evenly.
class TrafficCounter {
 public:
  TrafficCounter(Placement placement, TrafficOptions options);
  /// Draws which copy of each expert is the next; without, turns go on where the last count ended.
  void start_turns(Random& random);
  /// @param out  overwritten; no allocation when its sizes fit.
  void count(const Assignment& assignment, Traffic& out);
  [[nodiscard]] const Placement& placement() const { return placement_; }

 private:
  void count_single_copies(const Assignment& assignment, Traffic& out);

  Placement placement_;
  TrafficOptions options_;
  std::vector<std::int32_t> only_rank_;     ///< of each expert; empty where some expert has copies
  std::vector<std::uint32_t> sent_;         ///< rows of one sender to each rank
  std::vector<std::uint32_t> expert_rows_;  ///< rows of each expert
  std::vector<std::uint32_t> turn_;         ///< of each expert's copies
  std::vector<std::int32_t> copied_;        ///< experts with copies
  std::vector<std::uint32_t> seen_rank_, seen_node_;
  std::uint32_t stamp_ = 0;
};

/// The expectation of the same for token choice: every token draws k distinct experts by popularity, and one copy of
/// each, all copies alike.
///
/// Distinct ranks and nodes: see reach_probabilities.
/// @param tokens_per_rank  of each rank, at least 0.
Traffic expected_traffic(std::span<const double> popularity, int top_k, std::span<const double> tokens_per_rank,
                         const Placement& placement, const TrafficOptions& options);

}  // namespace moecast
