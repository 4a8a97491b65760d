#pragma once
#include <string>
#include <utility>
#include <vector>

#include "hwprofiles/cluster.h"
#include "sim/analytic/analytic.h"
#include "sim/event/ep_study.h"
#include "sim/event/event_graph.h"
#include "sim/predictor.h"
#include "sim/step/training_pipeline.h"

namespace moecast {

/// What ranks and links of a training step are beside the usual.
struct TrainingEventOptions {
  std::vector<std::pair<int, double>> slow_ranks;          ///< rank, factor on the time of its kernels
  std::vector<std::pair<std::string, double>> slow_links;  ///< link, factor on its bandwidth
  double background_share = 0;
};

/// A training step as tasks, and when each ran. All ranks of a stage do the same: kernels are those of the slowest one.
struct TrainingEvents {
  std::vector<TrainingStageGraph> stages;            ///< one where there is no pipeline
  std::vector<std::vector<OperatorTime>> durations;  ///< of each stage and operator, as it ran
  EventGraph graph;  ///< tasks are operators in their order, of each micro-batch where stages share it; traffic of
                     ///< others comes last
  EventTimes times;
  double step_s = 0;    ///< until the last operator has ended
  PassedStages passed;  ///< of a pipeline
  Origin links = Origin::measured;
  std::vector<std::string> notes;
};

/// Operators of a training step of a GPU (the graph that the closed form adds up), its collectives as traffic over the
/// links of a cluster. Stages of a pipeline pass micro-batches on (pipeline_graph).
/// @param deployment  dp filled in.
/// @throws InputError for parts that have no operators, ranks that the cluster lacks, a link that it lacks, more tasks
/// than are simulated.
TrainingEvents training_events(const GpuMachine& machine, const Cluster& cluster, const Architecture& architecture,
                               const Deployment& deployment, const Workload& workload,
                               const TrainingEventOptions& options);

/// The closed form's answer with the times that events say.
/// @param closed  predictor of the same machine.
Prediction predict_training_events(const Predictor& closed, const GpuMachine& machine, const Cluster& cluster,
                                   const Architecture& architecture, const Deployment& deployment,
                                   const Workload& workload, const TrainingEventOptions& options);

}  // namespace moecast
