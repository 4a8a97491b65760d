#pragma once
#include <string>

#include "tools/cli/query_options.h"

namespace moecast {

class Command;

/// What was typed about experts that come and go, as text.
struct ExpertEventFlags {
  std::string file;
  std::string recapture;
};

/// Adds --events and --recapture.
void add_expert_event_options(const Command& command, ExpertEventFlags& flags);

/// Prints the timeline of one query: a row before the first event and one after each. @return the exit code.
///
/// JSON: `timeline` [{`step`, `event` (add, remove, rebalance; null before the first), `expert`, `experts` of a layer,
/// `places_per_rank`, `moves` [{`expert`, `from` (null: the host), `to`}], `moved_bytes`, `transfer_s`, `recapture_s`,
/// `transition_s` (null: unknown, `unknown` says what is missing), `fullest_rank_rows`, `row_imbalance_ratio`, and the
/// step's outcome as `predict` has it}], `inputs`, `warnings`.
/// @throws UsageError on flags that contradict each other or ranges, InputError on a bad file.
int answer_expert_events(QueryOptions options, const ExpertEventFlags& flags);

}  // namespace moecast
