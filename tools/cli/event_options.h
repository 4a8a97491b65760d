#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hwprofiles/cluster.h"
#include "models/plan/engine.h"
#include "models/plan/moe_system.h"
#include "sim/event/ep_study.h"
#include "sim/event/training_events.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/query_options.h"

namespace moecast {

class Command;

/// What was typed about the event engine, as text.
struct EventFlags {
  std::string engine = "analytic";
  std::string system;
  std::string samples;
  std::string cluster;
  std::string dispatch;
  std::string exchange;
  std::string flows;
  std::string kernel;
  std::string placement;
  std::string slots;
  std::string chunks;
  std::string batches;
  std::string shadow;
  std::string background;
  std::string noise;
  std::string correlation;
  std::string drift;
  std::string jobs;
  std::vector<std::string> slow_ranks;
  std::vector<std::string> slow_links;
};

/// @param with_engine  adds --engine and --samples too (`predict`); else the command is of the event engine.
void add_event_options(const Command& command, EventFlags& flags, bool with_engine);

/// @throws UsageError on another word than analytic and event, and on flags of the event engine without it.
Engine engine_of(const EventFlags& flags);

/// @throws UsageError on a wrong value. @param seed  of the query.
EpOptions ep_options_of(const EventFlags& flags, std::uint64_t seed);

/// What the engine does where no flag says otherwise. @return the query's engine: where it names none the usual one of
/// whole models, and none of a layer.
EngineSpec take_engine(const DataFolders& folders, const Query& query, EpOptions& options);

/// What --system names, and the flags that it stands for where they were not typed. @throws UsageError on a typo.
std::optional<MoeSystem> apply_system(EventFlags& flags, const DataFolders& folders);

/// The cluster that --cluster names (a name of `list clusters`, or a file); not given: the first one of the device.
/// @throws UsageError on a typo, or when no cluster of the device is known.
Cluster choose_cluster(const std::string& name, const std::string& device, const DataFolders& folders);

/// @throws UsageError when tp x dp x cp x pp are more than the cluster has.
void require_devices(const Cluster& cluster, const Deployment& deployment);

/// "gaussian:0.5" or "uniform:1" as noise of a router's scores. @throws UsageError of --noise.
std::pair<RoutingNoise, double> parse_noise(const std::string& text);

/// Of a training step: links and ranks. @throws UsageError on a flag about routing, of which nothing is sampled then.
TrainingEventOptions training_options_of(const EventFlags& flags);

/// What the event engine was asked with, for the answer's `inputs`.
void add_event_inputs(const EventFlags& flags, const EpOptions& options, std::vector<InputValue>& inputs);
void add_event_inputs(const EventFlags& flags, const TrainingEventOptions& options, std::vector<InputValue>& inputs);

}  // namespace moecast
