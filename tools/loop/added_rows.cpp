#include "tools/loop/added_rows.h"

#include <cmath>

#include "sim/cost/kernel/table_load.h"

namespace moecast {
namespace {

/// Errors of the rows as a calibration answers them.
std::optional<ErrorSummary> errors_of(const KernelSamples& samples, const KernelCalibration& calibration,
                                      RankLoadCache& loads) {
  const KernelCalibration::Choice choice = calibration.choose(samples.key);
  if (choice.model == nullptr) return std::nullopt;
  const KernelModel model = choice.stand_in(samples.key, calibration.device);
  if (model.law == nullptr) return std::nullopt;
  std::vector<Outcome> outcomes;
  std::vector<double> values;
  CompiledKernel::Workspace workspace;
  for (std::size_t row = 0; row < samples.size(); ++row) {
    samples.row(row, values);
    const CompiledKernel::Answer answer =
        CompiledKernel(model, values, workspace).at({values, table_load(samples.key, values, loads)}, loads);
    Outcome outcome;
    outcome.predicted_s = std::exp(answer.log_seconds);
    outcome.low_s = std::exp(answer.log_low);
    outcome.high_s = std::exp(answer.log_high);
    outcome.measured_s = samples.latency_s[row];
    outcomes.push_back(outcome);
  }
  return summarise_errors(outcomes);
}

}  // namespace

std::vector<AddedRows> compare_added_rows(const std::vector<KernelSamples>& added, const KernelCalibration* before,
                                          const KernelCalibration& after) {
  RankLoadCache loads;
  std::vector<AddedRows> compared;
  for (const KernelSamples& samples : added) {
    AddedRows rows{samples.key, std::nullopt, errors_of(samples, after, loads)};
    if (before != nullptr) rows.before = errors_of(samples, *before, loads);
    compared.push_back(std::move(rows));
  }
  return compared;
}

}  // namespace moecast
