#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "hwprofiles/profile.h"
#include "sim/accuracy/accuracy.h"
#include "sim/accuracy/baselines.h"
#include "sim/predictor.h"
#include "tools/loop/bars.h"
#include "tools/loop/session_runner.h"

namespace moecast {

/// A case beside its prediction.
struct JudgedCase {
  ExecutedCase executed;
  Prediction prediction;
  Outcome outcome;
};

/// Errors of one stratum, in all and by tokens (T <= 16, 17-256, > 256; whole models have no bands).
struct StratumReport {
  std::string name;
  ErrorSummary all;
  std::vector<std::pair<std::string, ErrorSummary>> bands;
  std::optional<Verdict> verdict;    ///< nullopt where no bar is promised
  std::vector<std::string> reasons;  ///< why it is not passed
};

struct ValidationReport {
  std::vector<StratumReport> strata;  ///< "all" last
  std::vector<JudgedCase> cases;
  int skipped = 0;  ///< cases that could not be predicted, each with its reason in `notes`
  std::vector<std::string> notes;
  Verdict verdict = Verdict::passed;
};

/// Predicts every executed case and judges the strata by the bars.
ValidationReport judge(const std::vector<ExecutedCase>& executed, const Predictor& predictor,
                       const Baselines& baselines);

}  // namespace moecast
