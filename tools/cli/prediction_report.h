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
///
/// `offload` (null where all experts stay): `policy`, `overlap`, `experts` of a MoE layer on a rank, `resident_experts`
/// of these, `hit_ratio` of the experts that layers use, `missed_experts` a layer (mean, the rank that misses most),
/// `expert_bytes` of one, `fetched_bytes` of a step, `host_bytes` that stay off the rank, `host_link_bytes_per_s` and
/// `host_link_origin`, `transfer_s` of a step and `exposed_s`, the part of it that is waited for.
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

/// Every value that the answer was made with, and whether it was typed.
Table input_table(const std::vector<InputValue>& inputs);

std::string status_name(Status status);

}  // namespace moecast
