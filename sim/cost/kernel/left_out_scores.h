#pragma once
#include <optional>
#include <string>
#include <vector>

#include "sim/accuracy/accuracy.h"
#include "sim/cost/kernel/kernel_data.h"
#include "sim/cost/kernel/kernel_model.h"

namespace moecast {

struct LeftOutRows;

/// @param row_groups  of every row.
std::vector<LeftOutScore> left_out_scores(const KernelData& data, const LeftOutRows& rows,
                                          const std::vector<int>& row_groups);

/// 90 % scores from left-out rows, pooled and by group: the wider of the two.
/// @param skip  a group that does not count; -1 for none.
ScoreInterval score_interval(const std::vector<LeftOutScore>& rows, int skip);

/// How much wider the intervals of few groups have to be: factor on the scores, and their least value.
struct Caution {
  double factor = 1;
  double least = 0;
  /// A machine between two measured ones errs to the other side than one beyond them (8 ranks from 2 and 4 against 4
  /// from 2 and 8): what others err to one side is allowed to either.
  bool symmetric = false;
};
Caution caution_for(int groups);

/// Intervals of a calibration from its left-out rows, stretched until 90 % of the rows lie inside an interval that was
/// made without their own group.
struct LeftOutIntervals {
  ScoreInterval whole;
  std::vector<ScoreInterval> without;  ///< by group: neither its bounds nor its stretch has seen the group
};
LeftOutIntervals left_out_intervals(const std::vector<LeftOutScore>& rows, const Caution& caution);

/// Error and coverage of left-out rows, each interval without the scores of the row's own group.
/// @param intervals  of these rows and perhaps others, with the same numbers of groups.
std::optional<ErrorSummary> summarise_left_out(const std::vector<LeftOutScore>& rows,
                                               const LeftOutIntervals& intervals);

/// Median size of the scores of rows that are not in `skip`; 1 where there are none.
double usual_score(const std::vector<LeftOutScore>& rows, int skip);
/// Multiplies sigma of every row by the usual score of the other groups, so that kernels that are known well and badly
/// can be pooled.
void normalise_scores(std::vector<LeftOutScore>& rows);

/// Gives kernels of layouts whose laws pool their scores the intervals of all kernels of the layout together. Groups
/// are the same where they agree in kernel and group columns: versions of a library err alike.
void pool_scores(std::vector<KernelModel>& kernels);

}  // namespace moecast
