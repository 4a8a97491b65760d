#pragma once
#include <memory>
#include <string>
#include <vector>

#include "models/core/json.h"
#include "tools/cli/output.h"
#include "tools/cli/prediction_report.h"
#include "tools/loop/compare.h"

namespace moecast {

/// Two answers and what their difference is made of.
struct ComparedAnswers {
  Answer first;   ///< A: what was typed before --versus, or the first file
  Answer second;  ///< B
  Comparison comparison;
  std::shared_ptr<const Json> first_document;  ///< as `predict --format json` gives it
  std::shared_ptr<const Json> second_document;
};

/// Tables for people: inputs that differ, quantities, stages, verdict. @param format  table or md.
std::string comparison_text(const ComparedAnswers& compared, Format format);

/// `verdict`, `reason`, `speedup_ratio`, `inputs_that_differ`, `quantities`, `stages`, and both answers as `predict`
/// gives them under `a` and `b`. Unknown is null.
Json comparison_json(const ComparedAnswers& compared);

/// A record a quantity and a stage: `kind`, `name`, `a`, `b`, `difference`, `ratio`, `explained_ratio`, `cause`.
std::vector<Json> comparison_records(const ComparedAnswers& compared);

}  // namespace moecast
