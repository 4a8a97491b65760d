#include <algorithm>
#include <memory>

#include "sim/event/ep_study.h"

namespace moecast {

std::vector<std::vector<StepSample>> sample_trace(const EpPlan& plan, const RoutingTrace& trace, std::int64_t windows,
                                                  const EpOptions& options) {
  const auto samples = static_cast<std::size_t>(windows);
  std::vector<std::vector<StepSample>> all(plan.studies.size(), std::vector<StepSample>(samples));
  std::vector<std::unique_ptr<RoutingSimulator>> simulators;
  for (const EpStudy& study : plan.studies) simulators.push_back(std::make_unique<RoutingSimulator>(study.study));
  std::vector<int> place;  // of each MoE layer in its study
  std::vector<int> used(plan.studies.size(), 0);
  for (const int study : plan.study_of) place.push_back(used[static_cast<std::size_t>(study)]++);
  const auto experts_of = [&](std::size_t study) {
    return static_cast<int>(plan.studies[study].study.popularity.size());
  };
  int experts = experts_of(0);
  for (std::size_t i = 1; i < plan.studies.size(); ++i) experts = std::min(experts, experts_of(i));
  const std::size_t recorded = trace.layers.size();
  const std::size_t needed = std::min(recorded, plan.study_of.size());
  std::vector<std::size_t> layers_done(samples, 0);
  std::size_t left = needed * samples;
  int done = 0;
  read_trace_windows(trace.path, experts, plan.studies.front().study.tokens, windows,
                     [&](std::size_t layer, std::int64_t window, Assignment& assignment) {
                       if (options.stop != nullptr && options.stop->load()) return false;
                       if (layer >= needed) return true;
                       const auto sample = static_cast<std::size_t>(window);
                       for (std::size_t i = layer; i < plan.study_of.size(); i += recorded) {
                         const auto study = static_cast<std::size_t>(plan.study_of[i]);
                         assignment.experts = experts_of(study);
                         simulators[study]->add_recorded(place[i], assignment, all[study][sample]);
                       }
                       if (++layers_done[sample] == needed && options.progress) options.progress(++done);
                       return --left > 0;
                     });
  return all;
}

void replay_window(const EpPlan& plan, const RoutingTrace& trace, std::int64_t window, std::int64_t layers,
                   const RoutingSimulator::Observer& observer) {
  const std::size_t shown = std::min(plan.study_of.size(), static_cast<std::size_t>(layers));
  const std::size_t needed = std::min(trace.layers.size(), shown);
  const auto experts_of = [&](std::size_t study) {
    return static_cast<int>(plan.studies[study].study.popularity.size());
  };
  int experts = experts_of(0);
  for (std::size_t i = 1; i < plan.studies.size(); ++i) experts = std::min(experts, experts_of(i));
  std::vector<Assignment> recorded(needed);
  std::size_t left = needed;
  read_trace_windows(trace.path, experts, plan.studies.front().study.tokens, window + 1,
                     [&](std::size_t layer, std::int64_t at, const Assignment& assignment) {
                       if (layer >= needed || at != window) return true;
                       recorded[layer] = assignment;
                       return --left > 0;
                     });
  std::vector<std::unique_ptr<RoutingSimulator>> simulators;
  for (const EpStudy& study : plan.studies) simulators.push_back(std::make_unique<RoutingSimulator>(study.study));
  std::vector<int> used(plan.studies.size(), 0);
  for (std::size_t layer = 0; layer < shown; ++layer) {
    const auto study = static_cast<std::size_t>(plan.study_of[layer]);
    Assignment& assignment = recorded[layer % trace.layers.size()];
    assignment.experts = experts_of(study);
    StepSample sample;
    simulators[study]->add_recorded(used[study]++, assignment, sample, observer);
  }
}

}  // namespace moecast
