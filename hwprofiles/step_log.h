#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moecast {

/// One step of a real server, as its engine recorded it.
struct StepRecord {
  std::string phase;  ///< "decode", "mixed", "context"
  double context_tokens = 0;
  double prompts = 0;
  double prefix_tokens = 0;  ///< KV entries that the prompts already hold, of all together
  double decodes = 0;
  double decode_kv = 0;  ///< mean KV entries of a decode
  double latency_s = 0;  ///< between two results of the engine
  bool after_idle = false;
  std::string segment;  ///< of the run, as the table calls it (workload_segment); empty: it does not say
};

/// Reads a table of steps (CSV, gzip or not) in the order in which they were recorded.
/// Columns: phase, counter_id, ctx_tokens, ctx_requests, ctx_kv_tokens, decode_tokens, mean_decode_kv_tokens,
/// latency_ms; workload_segment may be missing. A gap in counter_id is an idle period.
/// @throws InputError naming line and column: a missing column, text where a number must be, a number below zero, a
/// step without tokens, a latency that is not above zero.
std::vector<StepRecord> read_step_log(const std::string& path);

}  // namespace moecast
