#include "tools/loop/validate_steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>

#include "models/core/statistics.h"
#include "sim/step/step_log_model.h"
#include "tools/loop/nearest_step.h"

namespace moecast {
namespace {

constexpr std::array<std::string_view, 4> kOrder{"all", "decode", "mixed", "prefill"};

/// A table that names more of them means something else.
constexpr std::size_t kMostSegments = 16;

std::string stratum_of(const StepRecord& record) {
  if (record.context_tokens == 0) return "decode";
  return record.decodes > 0 ? "mixed" : "prefill";
}

/// "decode, 5-8 sequences", "prefill, 513-2000 tokens".
std::string band_of(const StepRecord& record) {
  const bool decode = record.context_tokens == 0;
  const double size = decode ? record.decodes : record.context_tokens + record.decodes;
  constexpr std::array<double, 5> kSequences{4, 8, 16, 32, 64};
  constexpr std::array<double, 3> kTokens{512, 2000, 5000};
  const std::span<const double> ends = decode ? std::span<const double>(kSequences) : std::span<const double>(kTokens);
  const auto end = std::ranges::lower_bound(ends, size);
  const double first = end == ends.begin() ? 1 : *(end - 1) + 1;
  const std::string range =
      end == ends.end() ? fmt::format("{:03.0f} and more", first) : fmt::format("{:03.0f}-{:.0f}", first, *end);
  return fmt::format("{} {} {}", decode ? "decode" : "prefill", range, decode ? "sequences" : "tokens");
}

}  // namespace

StepValidationReport validate_steps(const StepValidation& request) {
  const Profile profile = read_profile(request.hw_folder);
  const KernelCalibration calibration = read_kernel_calibration(request.hw_folder, profile.name);
  EngineSpec engine = read_engine(request.engines, request.deployment.backend);
  StepValidationReport report;
  report.operators = make_step_operators(request.architecture, request.deployment, engine, calibration);
  StepModel model(report.operators, engine, request.deployment, calibration.device);
  const std::vector<StepRecord> records = read_step_log(request.table);
  const std::vector<LoggedStep> steps = logged_steps(model, records);
  report.host = request.fit ? fit_engine_host(model, records, steps) : engine.host;
  report.host_source = engine.host_source;
  const std::vector<double> predicted = logged_seconds(model, steps, report.host);
  const std::optional<NearestStep> nearest =
      request.reference.empty() ? std::nullopt : std::optional<NearestStep>(read_step_log(request.reference));
  Strata strata;
  std::map<std::string, std::array<double, 2>> run;  // by segment, "" all: predicted, measured
  std::map<bool, std::vector<double>> scores;
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (i < kWarmUpSteps) {
      ++report.not_judged["warm-up: the first 30 steps"];
      continue;
    }
    const StepCost cost = model.cost(steps[i].terms, report.host);
    const double half = model.half_width(steps[i].times, cost, steps[i].terms.launch);
    Outcome outcome;
    outcome.predicted_s = predicted[i];
    // What other ranks do has nothing to do with the error of kernels.
    outcome.low_s = predicted[i] * std::exp(-std::hypot(half, steps[i].unseen[0]));
    outcome.high_s = predicted[i] * std::exp(std::hypot(half, steps[i].unseen[1]));
    outcome.measured_s = records[i].latency_s;
    outcome.roofline_s = steps[i].roofline_s;
    if (nearest) outcome.nearest_s = nearest->seconds(records[i]);
    strata.add("all", outcome);
    strata.add(stratum_of(records[i]), outcome);
    strata.add(band_of(records[i]), outcome);
    const auto count = [&](const std::string& part) {
      run[part][0] += predicted[i];
      run[part][1] += records[i].latency_s;
    };
    count("");
    if (!records[i].segment.empty()) count(records[i].segment);
    scores[steps[i].terms.launch == StepLaunch::graph].push_back(
        std::abs(std::log(predicted[i] / records[i].latency_s)) /
        model.sigma(steps[i].times, cost, steps[i].terms.launch));
  }
  for (const auto& [segment, seconds] : run) {
    (segment.empty() ? report.run_ratio : report.segment_ratios[segment]) = seconds[0] / seconds[1];
  }
  if (!scores[true].empty()) report.decode_interval = quantile(scores[true], 0.9);
  if (!scores[false].empty()) report.prefill_interval = quantile(scores[false], 0.9);
  if (report.segment_ratios.size() > kMostSegments) report.segment_ratios.clear();
  report.strata = strata.summaries(kOrder);
  return report;
}

}  // namespace moecast
