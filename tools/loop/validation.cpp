#include "tools/loop/validation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "models/plan/graph.h"
#include "profiler/timing/summary.h"

namespace moecast {
namespace {

constexpr std::array<const char*, 3> kBandNames{"T <= 16", "17-256", "> 256"};

std::size_t band_of_case(const ValidationCase& c) {
  const double tokens = step_tokens(c.workload);
  return tokens <= 16 ? 0 : tokens <= 256 ? 1 : 2;
}

std::optional<double> bar_of_band(const Bars& bars, std::size_t band) {
  return std::array{bars.few, bars.some, bars.many}[band];
}

void lower(StratumReport& report, Verdict verdict, const std::string& reason) {
  if (verdict == Verdict::passed) return;
  report.verdict = worse(*report.verdict, verdict);
  report.reasons.push_back(reason);
}

/// A mean of fewer cases, a p90 of fewer, says nothing of a bar.
constexpr int kLeastCasesForMean = 5;
constexpr int kLeastCasesForP90 = 10;

void judge_summary(StratumReport& report, const std::string& name, const ErrorSummary& s, std::optional<double> bar) {
  if (s.n < kLeastCasesForMean) {
    lower(report, Verdict::undecided, fmt::format("{}: fewer than {} cases decide nothing", name, kLeastCasesForMean));
    return;
  }
  if (bar) {
    lower(report, judge_error(s.mape, *bar, s.noise_mape),
          fmt::format("{}: mean error {:.1f} %, bar {:.1f} %, noise {}", name, 100 * s.mape, 100 * *bar,
                      s.noise_mape ? fmt::format("{:.1f} %", 100 * *s.noise_mape) : "unknown"));
  }
  if (s.roofline_mape && s.nearest_mape) {
    lower(report, judge_baselines(s.mape, *s.roofline_mape, *s.nearest_mape, s.noise_mape),
          fmt::format("{}: mean error {:.1f} % against {:.1f} % (FLOP rate) and {:.1f} % (nearest point)", name,
                      100 * s.mape, 100 * *s.roofline_mape, 100 * *s.nearest_mape));
  }
}

void judge_stratum(StratumReport& report) {
  const auto bars = bars_of(report.name);
  if (!bars) return;
  report.verdict = Verdict::passed;
  if (report.all.n < kLeastCasesForMean) {
    lower(report, Verdict::undecided, fmt::format("fewer than {} cases decide nothing", kLeastCasesForMean));
    return;
  }
  for (std::size_t band = 0; band < kBandNames.size(); ++band) {
    for (const auto& [name, summary] : report.bands) {
      if (name == kBandNames[band]) judge_summary(report, name, summary, bar_of_band(*bars, band));
    }
  }
  const ErrorSummary& all = report.all;
  judge_summary(report, "all", all, bars->all);
  if (all.n < kLeastCasesForP90) {
    lower(report, Verdict::undecided,
          fmt::format("p90 error {:.1f} % of {} cases decides nothing", 100 * all.p90_ape, all.n));
    return;
  }
  lower(report, judge_error(all.p90_ape, bars->p90_all, all.noise_p90),
        fmt::format("p90 error {:.1f} %, bar {:.1f} %", 100 * all.p90_ape, 100 * bars->p90_all));
}

/// Over all cases: the order of latencies, and whether the intervals keep their promise.
void judge_whole(StratumReport& report) {
  const ErrorSummary& all = report.all;
  report.verdict = Verdict::passed;
  lower(report, judge_tau(all.kendall_tau, all.n),
        fmt::format("Kendall tau {}, bar {:.2f}", all.kendall_tau ? fmt::format("{:.3f}", *all.kendall_tau) : "unknown",
                    least_tau()));
  const int covered = static_cast<int>(std::lround(all.coverage_90_ratio * all.n));
  lower(report, judge_coverage(covered, all.n),
        fmt::format("90 % intervals contain {:.0f} % of the cases, 86 to 94 % are right", 100 * all.coverage_90_ratio));
}

std::vector<Outcome> outcomes_of(const std::vector<JudgedCase>& cases, const std::string& stratum,
                                 std::optional<std::size_t> band) {
  std::vector<Outcome> outcomes;
  for (const JudgedCase& c : cases) {
    if (!stratum.empty() && c.executed.asked.stratum != stratum) continue;
    if (band && band_of_case(c.executed.asked) != *band) continue;
    outcomes.push_back(c.outcome);
  }
  return outcomes;
}

StratumReport report_stratum(const std::vector<JudgedCase>& cases, const std::string& name) {
  const std::string filter = name == "all" ? "" : name;
  StratumReport report;
  report.name = name;
  report.all = *summarise_errors(outcomes_of(cases, filter, std::nullopt));
  if (name != "transformers") {
    for (std::size_t band = 0; band < kBandNames.size(); ++band) {
      const auto summary = summarise_errors(outcomes_of(cases, filter, band));
      if (summary) report.bands.emplace_back(kBandNames[band], *summary);
    }
  }
  if (name == "all") {
    judge_whole(report);
  } else {
    judge_stratum(report);
  }
  return report;
}

}  // namespace

ValidationReport judge(const std::vector<ExecutedCase>& executed, const Predictor& predictor,
                       const Baselines& baselines) {
  ValidationReport report;
  std::vector<std::string> names;
  for (const ExecutedCase& c : executed) {
    JudgedCase judged{c, predictor.predict(c.asked.architecture, c.asked.deployment, c.asked.workload), {}};
    const Prediction& p = judged.prediction;
    if (!p.latency) {
      ++report.skipped;
      report.notes.push_back(c.asked.stratum + ": " + p.reason);
      continue;
    }
    const OperatorGraph graph = build_graph(c.asked.architecture, c.asked.deployment, c.asked.workload);
    judged.outcome = {p.latency->value(),
                      p.low->value(),
                      p.high->value(),
                      c.timing.latency.value(),
                      baselines.roofline_s(graph, c.asked.deployment),
                      baselines.nearest_s(graph, c.asked.deployment),
                      rerun_difference(c.timing.round_s)};
    if (std::find(names.begin(), names.end(), c.asked.stratum) == names.end()) names.push_back(c.asked.stratum);
    report.cases.push_back(std::move(judged));
  }
  for (const std::string& name : names) report.strata.push_back(report_stratum(report.cases, name));
  if (!report.cases.empty()) report.strata.push_back(report_stratum(report.cases, "all"));
  for (const StratumReport& stratum : report.strata) {
    if (stratum.verdict) report.verdict = worse(report.verdict, *stratum.verdict);
  }
  return report;
}

}  // namespace moecast
