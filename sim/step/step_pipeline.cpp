#include "sim/step/step_pipeline.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "models/plan/stages.h"
#include "sim/step/collective_cost.h"

namespace moecast {
namespace {

StageLink make_link(int stage, double hidden, const Deployment& deployment, const EnginePipeline& engine,
                    const KernelCalibration& calibration) {
  StageLink link;
  link.nodes = stage_crosses_nodes(stage, stage_ranks(deployment), calibration.device.node_devices) ? 2 : 1;
  const int slices = engine.sliced ? deployment.tp : 1;
  const double elements = hidden * engine.tensors;
  const CollectiveCost send = collective_cost(calibration, "point_to_point", 2, link.nodes);
  link.kernel = send.kernel;
  if (slices == 1) {
    link.seconds = [send = send.seconds, elements](double rows) { return send(rows * elements); };
    return link;
  }
  const CollectiveCost gather = collective_cost(calibration, "all_gather", slices, 1);
  link.seconds = [send = send.seconds, gather = gather.seconds, elements, slices](double rows) {
    return send(rows * elements / slices) + gather(rows * elements);
  };
  return link;
}

template <class Take>
std::vector<std::string> gathered(const std::vector<StepModel>& stages, Take take) {
  std::vector<std::string> all;
  for (const StepModel& stage : stages) {
    for (const std::string& text : take(stage.operators())) {
      if (std::ranges::find(all, text) == all.end()) all.push_back(text);
    }
  }
  return all;
}

}  // namespace

std::vector<std::string> StepPipeline::not_executed() const {
  return gathered(stages, [](const StepOperators& operators) { return operators.not_executed; });
}

std::vector<std::string> StepPipeline::notes() const {
  std::vector<std::string> all = gathered(stages, [](const StepOperators& operators) { return operators.notes; });
  if (std::ranges::any_of(links, [](const StageLink& link) { return link.kernel == "physics"; })) {
    all.emplace_back("pipeline: no measured transfer between stages; bytes over the assumed bandwidth of the link");
  }
  return all;
}

StepPipeline make_step_pipeline(const Architecture& architecture, const Deployment& asked, const EngineSpec& engine,
                                const KernelCalibration& calibration, const StepRouting& routing, bool joins) {
  Deployment deployment = asked;
  deployment.extra_layers = engine.pipeline.extra_layers;
  StepPipeline pipeline;
  if (deployment.pp == 1) {
    pipeline.stages.emplace_back(
        make_step_operators(architecture, deployment, engine, calibration, routing, {.joins = joins}), engine,
        deployment, calibration.device);
    pipeline.equals = {0};
    return pipeline;
  }
  std::optional<Architecture> before;
  for (const StageLayers& layers : stage_layers(architecture.decoder.size(), deployment.pp, deployment.extra_layers)) {
    Architecture stage = stage_architecture(architecture, layers);
    const bool embeds = layers.first == 0;
    if (!embeds && before && stage == *before) {  // as the stage before it
      pipeline.stages.push_back(pipeline.stages.back());
      pipeline.equals.push_back(pipeline.equals.back());
      continue;
    }
    pipeline.stages.emplace_back(
        make_step_operators(stage, deployment, engine, calibration, routing, {.embeds = embeds}), engine, deployment,
        calibration.device);
    pipeline.equals.push_back(pipeline.stages.size() - 1);
    if (!embeds) before = std::move(stage);
  }
  const auto hidden = static_cast<double>(architecture.hidden);
  for (int stage = 0; stage + 1 < deployment.pp; ++stage) {
    pipeline.links.push_back(make_link(stage, hidden, deployment, engine.pipeline, calibration));
  }
  return pipeline;
}

std::vector<MicroBatch> split_batch(std::int64_t decodes, std::int64_t prompts, std::int64_t count) {
  const std::int64_t parts = std::max<std::int64_t>(1, std::min(count, decodes + prompts));
  std::vector<MicroBatch> kinds;
  for (std::int64_t i = 0; i < parts; ++i) {
    const std::int64_t from_the_end = parts - 1 - i;
    const std::int64_t mine = decodes / parts + (i < decodes % parts ? 1 : 0);
    const std::int64_t prefills = prompts / parts + (from_the_end < prompts % parts ? 1 : 0);
    const auto same =
        std::ranges::find_if(kinds, [&](const MicroBatch& m) { return m.decodes == mine && m.prompts == prefills; });
    const auto place = static_cast<std::size_t>(i);
    if (same == kinds.end()) {
      kinds.push_back({mine, prefills, {place}});
    } else {
      same->places.push_back(place);
    }
  }
  return kinds;
}

}  // namespace moecast
