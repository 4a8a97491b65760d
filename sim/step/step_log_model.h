#pragma once
#include <array>
#include <span>
#include <vector>

#include "hwprofiles/step_log.h"
#include "sim/step/step_model.h"

namespace moecast {

/// A recorded step as the law sees it.
struct LoggedStep {
  StepTerms terms;
  StepTimes times{};
  double roofline_s = 0;  ///< StepModel::roofline_s
  /// What ranks that are not in the log may do changes the step by so much: ln, below (as a positive number) and above.
  std::array<double, 2> unseen{};
};

/// Kernel sums of every recorded step. Under data-parallel attention the other ranks are not in the log: a decode step
/// pads to the fullest rank, which has as many sequences or one more, at most two; a rank with prompts meets decoding
/// ones, or one at a prompt of its own that it has to wait for: as long as nine tenths of the log's.
std::vector<LoggedStep> logged_steps(const StepModel& model, std::span<const StepRecord> records);

/// What the log reads for each step: the time between two results of the engine.
///
/// A worker in a process of its own (several ranks): the step itself. A worker inside the scheduler's process launches
/// step i + 1 before it collects step i, so that the host's part moves one step forward; sums over a burst are kept.
std::vector<double> logged_seconds(const StepModel& model, std::span<const LoggedStep> steps, const EngineHost& host);

/// Steps of a log that are no warm-up: all but the first 30.
inline constexpr std::size_t kWarmUpSteps = 30;

/// Host constants from the log of one deployment, held near the engine's. Steps above 150 ms are stalls and left out.
EngineHost fit_engine_host(const StepModel& model, std::span<const StepRecord> records,
                           std::span<const LoggedStep> steps);

}  // namespace moecast
