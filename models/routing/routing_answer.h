#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "models/architecture/moe.h"
#include "models/core/dtype.h"
#include "models/routing/assignment.h"
#include "models/routing/metrics.h"
#include "models/routing/traffic.h"

namespace moecast {

/// One MoE layer's routing: what is asked.
struct RoutingQuestion {
  RoutingPolicy policy;
  std::vector<double> popularity;  ///< of each expert, sums to 1
  std::int64_t tokens = 1;         ///< equal shares start on each rank
  CapacitySpec capacity;
  std::int64_t row_block = 1;  ///< a rank computes whole blocks of an expert's rows (MegaBlocks: 128)
  Placement placement{1, {{0}}};
  Deduplication deduplication = Deduplication::per_rank;
  int ranks_per_node = 8;
  std::optional<double> flops_per_row;  ///< of an expert; unknown: wasted FLOPs are unknown
  int samples = 0;                      ///< 0: expectation
  std::uint64_t seed = 1;
};

/// Means of what single routings are like.
struct SampledMetrics {
  int samples = 0;
  LoadMetrics experts, ranks;
};

/// Means over the samples, or the expectation. Rows are (token, slot) pairs.
struct RoutingAnswer {
  bool expected = true;
  std::vector<double> asked;            ///< rows of each expert as the router chose
  std::vector<double> rows_per_expert;  ///< that are computed (kept, moved ones where they went)
  std::vector<double> rows_per_rank;
  std::vector<double> tokens_per_rank;  ///< copies that arrive at a rank, its own included
  ByteMatrix copies{1};                 ///< of tokens, from rank to rank; combine goes the other way round
  LoadMetrics experts;                  ///< mean of the samples' metrics; of an expectation those of its rows
  LoadMetrics ranks;
  /// Of an expectation: chance makes each routing less even than the expected rows are. Unknown where samples would
  /// hold too many rows to be drawn by the way.
  std::optional<SampledMetrics> sampled;
  double experts_per_token = 0;
  double distinct_experts = 0;        ///< with at least one row
  std::optional<std::int64_t> slots;  ///< of an expert
  double kept = 0, dropped = 0, moved = 0, queued = 0, padded = 0;
  std::optional<double> wasted_flops;  ///< on padded rows: empty slots, and what fills blocks
};

/// Bytes of a token's activations under way, their scales included: one fp32 per 128 elements of fp8_block and a row of
/// fp8 and int8, one byte per 32 of mxfp8 and mxfp4, per 16 of nvfp4.
/// @throws InputError for formats that only weights have.
double activation_row_bytes(std::int64_t hidden, DType dtype);

/// The question has an answer in closed form: token choice of a fixed k, hash and dense routing, without a capacity
/// and without blocks of rows.
bool has_expected_routing(const RoutingQuestion& question);

/// @throws InputError where numbers contradict each other, or a closed form is asked of what has none.
RoutingAnswer answer_routing(const RoutingQuestion& question);

}  // namespace moecast
