// Descriptions of clusters, of serving engines, of published benchmarks and of published systems, rules of backends,
// lists of events.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "hwprofiles/backend_rules.h"
#include "hwprofiles/cluster.h"
#include "hwprofiles/published_runs.h"
#include "models/core/error.h"
#include "models/plan/engine.h"
#include "models/plan/moe_system.h"
#include "models/routing/expert_events.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const moecast::Cluster cluster = moecast::parse_cluster_text(text, "fuzz");
    const moecast::Topology topology(cluster, 1, nullptr);
    static_cast<void>(topology.links().size());
  } catch (const moecast::Error&) {
  }
  try {
    const moecast::BackendRules rules = moecast::parse_backend_rules_text(text, "fuzz");
    const std::string written = moecast::backend_rules_text(rules);
    if (moecast::backend_rules_text(moecast::parse_backend_rules_text(written, "again")) != written) std::abort();
    for (const moecast::KernelRule& rule : rules.rules) {
      const std::vector<double> row(moecast::find_kernel_layout(rule.layout)->numbers.size(), 64);
      static_cast<void>(rules.find(rule.layout, rule.formats.front(), row));
      static_cast<void>(rules.thresholds(rule.layout, rule.formats.front()));
      static_cast<void>(rule.when_text());
    }
  } catch (const moecast::Error&) {
  }
  try {
    static_cast<void>(moecast::parse_engine_text(text, "fuzz").padded_rows(7));
  } catch (const moecast::Error&) {
  }
  try {
    moecast::ServingRow row;
    row.model = "deepseek-ai/DeepSeek-V3";
    row.engine = "trtllm";
    static_cast<void>(moecast::PublishedRuns::parse(text, "fuzz").settings_of(row).wait_steps);
  } catch (const moecast::Error&) {
  }
  try {
    static_cast<void>(moecast::run_by(moecast::parse_moe_system(text, "fuzz"), {}));
  } catch (const moecast::Error&) {
  }
  try {
    moecast::ExpertSet experts(std::vector<double>(8, 1.0), 2, 2);
    for (const moecast::ExpertEvent& event : moecast::parse_expert_events(text, "fuzz").events) experts.apply(event);
  } catch (const moecast::Error&) {
  }
  return 0;
}
