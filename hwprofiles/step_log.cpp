#include "hwprofiles/step_log.h"

#include <array>
#include <optional>
#include <string_view>

#include "hwprofiles/csv_table.h"
#include "models/core/error.h"

namespace moecast {
namespace {

enum LogColumn {
  kPhase,
  kCounter,
  kContext,
  kPrompts,
  kPrefix,
  kDecodes,
  kDecodeKv,
  kLatency,
  kSegment,
  kLogColumnCount
};
constexpr std::array<std::string_view, kLogColumnCount> kLogColumns{"phase",
                                                                    "counter_id",
                                                                    "ctx_tokens",
                                                                    "ctx_requests",
                                                                    "ctx_kv_tokens",
                                                                    "decode_tokens",
                                                                    "mean_decode_kv_tokens",
                                                                    "latency_ms",
                                                                    "?workload_segment"};
constexpr double kMostLogTokens = 1e9;
constexpr double kMostLogMilliseconds = 1e7;

}  // namespace

std::vector<StepRecord> read_step_log(const std::string& path) {
  std::vector<StepRecord> steps;
  std::optional<double> last;
  read_csv_table(path, kLogColumns, [&](const CsvRow& row) {
    StepRecord step;
    step.phase = row.text(kPhase);
    step.context_tokens = row.number(kContext, 0, kMostLogTokens);
    step.prompts = row.number(kPrompts, 0, kMostLogTokens);
    step.prefix_tokens = row.number(kPrefix, 0, 1e15);
    step.decodes = row.number(kDecodes, 0, kMostLogTokens);
    step.decode_kv = row.number(kDecodeKv, 0, 1e12);
    step.latency_s = 1e-3 * row.number(kLatency, 1e-6, kMostLogMilliseconds);
    step.segment = row.text(kSegment);
    if (step.context_tokens + step.decodes < 1) throw InputError(row.where(), "is a step without tokens");
    if (step.context_tokens > 0 && step.prompts < 1) throw InputError(row.where(), "has tokens of no prompt");
    const double counter = row.number(kCounter, 0, 1e18);
    step.after_idle = !last || counter != *last + 1;
    last = counter;
    steps.push_back(std::move(step));
  });
  return steps;
}

}  // namespace moecast
