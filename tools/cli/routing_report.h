#pragma once
#include <string>
#include <vector>

#include "models/routing/balancing.h"
#include "tools/cli/output.h"
#include "tools/cli/routing_options.h"

namespace moecast {

/// What was asked and answered, with the steps where there are some.
struct RoutingResult {
  RoutingRequest request;
  RoutingAnswer answer;
  std::vector<BalancingStep> steps;
};

/// Metrics, capacity and moves, one a line.
Table routing_summary(const RoutingResult& result);
/// One of experts, ranks, matrix, placement, steps. @throws UsageError on another word, or steps that are not there.
Table routing_table(const RoutingResult& result, const std::string& what);
/// The same as records with SI units in their names: cells of one table, for csv and jsonl.
std::vector<Json> routing_records(const RoutingResult& result, const std::string& what);
/// Everything.
Json routing_json(const RoutingResult& result);

}  // namespace moecast
