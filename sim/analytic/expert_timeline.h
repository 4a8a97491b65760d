#pragma once
#include <optional>
#include <string>
#include <vector>

#include "hwprofiles/profile.h"
#include "models/routing/expert_events.h"
#include "sim/predictor.h"

namespace moecast {

/// What a change of experts costs a machine; nullopt: nobody knows.
struct TransitionCosts {
  std::optional<BytesPerSecond> host;   ///< from where weights of new experts lie to a rank
  std::optional<BytesPerSecond> ranks;  ///< of a rank's link to others, one direction
  std::optional<BytesPerSecond> copy;   ///< of copies that stay on a rank
  std::optional<Seconds> recapture;     ///< of all graphs that the engine replays
  bool replays_graphs = true;
};

/// GPUs: the link to the host (given, else as `host_link` has it), the scale-up link and the memory at 70 % of what the
/// profile says; graphs are captured again. CPUs: memory as it was measured; no graphs.
/// @param host_link, recapture  given by the user. @param threads  of a CPU.
TransitionCosts transition_costs(const Profile& profile, std::optional<BytesPerSecond> host_link,
                                 std::optional<Seconds> recapture, int threads);

/// After an event: what it moved, how long the service stood still, and how long a step takes from then on.
struct TimelineEntry {
  std::optional<ExpertEvent> event;  ///< nullopt: before the first
  ExpertChange change;
  int experts = 0;                    ///< of a layer
  int places = 0;                     ///< of a rank
  Bytes moved;                        ///< of all layers: whole experts
  std::optional<Seconds> transfer;    ///< ranks receive at the same time, over links of their own
  std::optional<Seconds> recapture;   ///< 0 where the places of a rank stay as many, or no graphs are replayed
  std::optional<Seconds> transition;  ///< both, one after the other
  std::string unknown;                ///< what `transition` lacks; empty where it is known
  double fullest_rows = 0;            ///< expected rows of a layer on the rank with the most
  double row_imbalance = 1;           ///< over the mean of the ranks
  Prediction steady;                  ///< of a step, as many experts on every rank as the fullest has
};

/// Steps of a model whose experts come and go. Every MoE layer has the same experts and every event happens to all.
/// @param keep_load  the predictor is told the workload's law of popularity whatever happens (GPUs, of which a law's
/// spread is all that is used), else the weights of the experts that are there.
/// @throws InputError ("events") for models without experts, with layers that differ, or whose router cannot take
/// another number of experts, and for events that cannot happen.
std::vector<TimelineEntry> expert_timeline(const Predictor& predictor, const Architecture& architecture,
                                           const Deployment& deployment, const Workload& workload,
                                           const ExpertEvents& events, const TransitionCosts& costs, bool keep_load);

}  // namespace moecast
