#pragma once
#include <string>
#include <vector>

#include "models/core/json.h"
#include "sim/predictor.h"
#include "tools/cli/output.h"
#include "tools/cli/query_options.h"

namespace moecast {

struct Answer {
  Query query;
  Prediction prediction;
};

/// The JSON contract of `predict`: keys are only ever added. Unknown is null.
Json prediction_json(const Answer& answer);

/// Parts of every answer: what a rank holds, and each input with the list of those that are `defaults`.
Json memory_json(const MemoryPerRank& memory);
Json inputs_json(const std::vector<InputValue>& inputs);

/// The part of it that has one value a key: status, latency, factors, memory, bottleneck, origin.
Json outcome_json(const Prediction& prediction);

/// A few lines for one answer: latency with interval and origin, bottleneck, factors, memory.
std::string summary_text(const Answer& answer);

/// One row an answer: the flags that were ranges, latency, interval, throughput, bottleneck, origin.
Table summary_table(const std::vector<Answer>& answers);

/// Latency by stage and operator, with share and origin.
Table operator_table(const Prediction& prediction);

/// Every value that the answer was made with, and whether it was typed.
Table input_table(const std::vector<InputValue>& inputs);

std::string status_name(Status status);

}  // namespace moecast
