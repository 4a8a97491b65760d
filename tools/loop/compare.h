#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/core/units.h"
#include "sim/predictor.h"

namespace moecast {

/// Of a second answer B beside a first one A. Intervals that overlap leave it undecided.
enum class Ranking { faster, slower, equal, undecided, only_first, only_second, neither };
std::string_view to_string(Ranking ranking);

/// Operators of one purpose, all of their executions.
struct StageDifference {
  std::string
      stage;  ///< attention, experts, router, dispatch, combine, shared, dense, norm, head, all_reduce, host, ...
  Seconds first, second;
  /// Of the difference of latency: negative where the stage moves the other way; nullopt where there is none.
  std::optional<double> explained_ratio;
  std::string cause;  ///< the operator that changed most, and how; empty where nothing changed
};

struct Comparison {
  Ranking ranking = Ranking::neither;
  std::string verdict_text;  ///< "B is 1.31 x faster", "undecided: the intervals overlap", ...
  /// The same of tokens a second, where a step of A and one of B make different numbers of tokens; else empty.
  std::string throughput_text;
  /// Those that explain most first, whichever way they move; empty unless both have a latency.
  std::vector<StageDifference> stages;
};

/// What an operator is for, in the words of DESIGN, whichever predictor names it.
std::string stage_of(const OperatorCost& cost);

/// @param first, second  answers A and B. Their intervals are taken as independent, which is cautious where both come
///        from the same calibration.
Comparison compare(const Prediction& first, const Prediction& second);

}  // namespace moecast
