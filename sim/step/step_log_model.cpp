#include "sim/step/step_log_model.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>

#include "sim/fit/least_squares.h"

namespace moecast {
namespace {

constexpr double kShortest = 0.4e-3;  ///< what the log reads at least, s
constexpr double kStall = 0.15;       ///< s
/// Decode steps are many and alike.
constexpr double kDecodeWeight = 0.3;
constexpr double kLogPriorWeight = 0.5;
/// Sequences that the fullest rank has more than the one whose log this is.
constexpr int kFurthestReplica = 2;
/// Share of the prompts' steps of a log that are no longer than what another rank may be at.
constexpr double kLongPrefill = 0.9;

double tokens_of(const StepRecord& record) { return record.context_tokens + record.decodes; }

/// The step with prompts that has more tokens than nine tenths of them.
std::optional<StepRecord> long_prefill(std::span<const StepRecord> records) {
  std::vector<StepRecord> prompts;
  std::ranges::copy_if(records, std::back_inserter(prompts), [](const StepRecord& r) { return r.context_tokens > 0; });
  if (prompts.empty()) return std::nullopt;
  const auto at = prompts.begin() + static_cast<std::ptrdiff_t>(kLongPrefill * static_cast<double>(prompts.size()));
  std::ranges::nth_element(prompts, at, {}, tokens_of);
  return *at;
}

StepShape shape_of(const StepRecord& record) {
  StepShape shape;
  shape.decodes = record.decodes;
  shape.decode_kv = record.decode_kv;
  shape.context = record.context_tokens;
  shape.prompts = record.prompts;
  shape.prefix = record.prefix_tokens;
  return shape;
}

/// The step where some replica does what the record says, and experts see as many rows of every other one.
StepTerms fullest_replica(const StepModel& model, const StepRecord& record, const StepTerms& own) {
  StepTerms terms = own;
  terms.tokens = tokens_of(record);
  terms.launch = model.launch_of(terms.tokens, record.context_tokens > 0);
  StepShape shape = shape_of(record);
  shape.rows = model.padded(terms.tokens + (record.context_tokens > 0 ? 0 : kFurthestReplica));
  shape.expert_rows = shape.rows * model.deployment().dp;
  terms.kernels_s = sum(model.times(shape));
  return terms;
}

std::array<double, 2> range_of(const StepModel& model, const StepTerms& least, const StepTerms& expected,
                               const StepTerms& most) {
  const double middle = model.cost(expected).seconds;
  return {std::max(0.0, std::log(middle / model.cost(least).seconds)),
          std::max(0.0, std::log(model.cost(most).seconds / middle))};
}

}  // namespace

std::vector<LoggedStep> logged_steps(const StepModel& model, std::span<const StepRecord> records) {
  const double dp = model.deployment().dp;
  const std::optional<StepRecord> longest = dp > 1 ? long_prefill(records) : std::nullopt;
  std::vector<LoggedStep> steps;
  steps.reserve(records.size());
  for (const StepRecord& record : records) {
    LoggedStep step;
    step.terms.tokens = tokens_of(record);
    const bool prefill = record.context_tokens > 0;
    step.terms.launch = model.launch_of(step.terms.tokens, prefill);
    step.terms.after_idle = record.after_idle;
    StepShape shape = shape_of(record);
    const int variants = dp > 1 ? 2 : 1;
    StepTerms least = step.terms;
    for (int extra = 0; extra < variants; ++extra) {
      shape.rows = model.padded(step.terms.tokens + (prefill ? 0 : extra));
      shape.expert_rows = prefill ? shape.rows + (dp - 1) * model.padded(record.decodes + 1) : shape.rows * dp;
      const StepTimes times = model.times(shape);
      if (extra == 0) least.kernels_s = sum(times);
      for (std::size_t i = 0; i < times.size(); ++i) step.times[i] += times[i] / variants;
      step.roofline_s += model.roofline_s(shape) / variants;
    }
    step.terms.kernels_s = sum(step.times);
    if (dp > 1) {
      const bool longer = prefill && tokens_of(*longest) > step.terms.tokens;
      const StepTerms most = fullest_replica(model, longer ? *longest : record, step.terms);
      step.unseen = range_of(model, least, step.terms, most);
    }
    steps.push_back(step);
  }
  return steps;
}

std::vector<double> logged_seconds(const StepModel& model, std::span<const LoggedStep> steps, const EngineHost& host) {
  const bool own_process = model.deployment().tp * model.deployment().dp > 1;
  std::vector<StepCost> costs;
  costs.reserve(steps.size());
  for (const LoggedStep& step : steps) costs.push_back(model.cost(step.terms, host));
  std::vector<double> seconds;
  seconds.reserve(steps.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    double logged = costs[i].seconds;
    if (!own_process) {
      if (!steps[i].terms.after_idle) logged -= costs[i].host_s;
      if (i + 1 < steps.size() && !steps[i + 1].terms.after_idle) logged += costs[i + 1].host_s;
    }
    seconds.push_back(std::max(kShortest, logged));
  }
  return seconds;
}

EngineHost fit_engine_host(const StepModel& model, std::span<const StepRecord> records,
                           std::span<const LoggedStep> steps) {
  const std::array<double, EngineHost::kCount> prior = model.engine().host.values();
  const auto host_of = [&](const Eigen::VectorXd& x) {
    std::array<double, EngineHost::kCount> values{};
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = prior[i] * x(static_cast<Eigen::Index>(i));
    return EngineHost::of(values);
  };
  std::vector<double> weights;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const bool used = i >= kWarmUpSteps && records[i].latency_s < kStall;
    weights.push_back(used ? steps[i].terms.launch == StepLaunch::graph ? kDecodeWeight : 1 : 0);
  }
  LeastSquaresProblem problem;
  problem.residuals = [&](const Eigen::VectorXd& x) {
    const std::vector<double> seconds = logged_seconds(model, steps, host_of(x));
    Eigen::VectorXd r(static_cast<Eigen::Index>(seconds.size()));
    for (std::size_t i = 0; i < seconds.size(); ++i) {
      r(static_cast<Eigen::Index>(i)) = weights[i] * std::log(seconds[i] / records[i].latency_s);
    }
    return r;
  };
  problem.penalties = [](const Eigen::VectorXd& x) -> Eigen::VectorXd {
    return kLogPriorWeight * (x.array() - 1).matrix();
  };
  const Eigen::VectorXd start = Eigen::VectorXd::Ones(EngineHost::kCount);
  Eigen::VectorXd best = fit_least_squares(problem, start);
  best = best.cwiseMax(0.0);
  return host_of(best);
}

}  // namespace moecast
