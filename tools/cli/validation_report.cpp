#include "tools/cli/validation_report.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "models/core/quantity_text.h"
#include "models/plan/graph.h"
#include "tools/cli/strata_report.h"

namespace moecast {
namespace {

std::string three_decimals(double value) { return fmt::format("{:.3f}", value); }

std::vector<std::string> row(const std::string& stratum, const std::string& band, const ErrorSummary& s,
                             const std::string& verdict) {
  return {stratum,
          band,
          std::to_string(s.n),
          format_percent(s.median_ape),
          format_percent(s.mape),
          format_percent(s.p90_ape),
          format_percent(s.within_10_ratio),
          format_or_dash(s.kendall_tau, three_decimals),
          format_percent(s.coverage_90_ratio),
          format_or_dash(s.noise_mape, format_percent),
          format_or_dash(s.roofline_mape, format_percent),
          format_or_dash(s.nearest_mape, format_percent),
          verdict};
}

const MoeBlock* first_moe(const Architecture& architecture) {
  for (const Layer& layer : architecture.decoder) {
    for (const Block& block : layer.blocks) {
      if (const auto* moe = std::get_if<MoeBlock>(&block)) return moe;
    }
  }
  return nullptr;
}

}  // namespace

std::string validation_text(const ValidationReport& report, Format format) {
  Table table{{"stratum", "tokens", "n", "median", "mean", "p90", "within 10 %", "tau", "in 90 %", "noise", "FLOP rate",
               "nearest", "verdict"},
              {}};
  std::string reasons;
  for (const StratumReport& s : report.strata) {
    for (const auto& [name, summary] : s.bands) table.rows.push_back(row(s.name, name, summary, ""));
    const std::string verdict = s.verdict ? std::string(to_string(*s.verdict)) : "no bar";
    table.rows.push_back(row(s.name, "all", s.all, verdict));
    for (const std::string& reason : s.reasons) reasons += fmt::format("{}: {}\n", s.name, reason);
  }
  std::string text = render_table(table, format);
  text +=
      "\nerror = |predicted - executed| / executed; noise = the same between two halves of the executions' rounds;\n"
      "FLOP rate and nearest = mean error of a fitted FLOP rate and of the nearest measured kernel, scaled.\n";
  if (!reasons.empty()) text += "\n" + reasons;
  for (const std::string& line : report.notes) text += "note: " + line + "\n";
  if (report.skipped > 0) text += fmt::format("note: {} cases could not be predicted\n", report.skipped);
  text += fmt::format("\n{} of {} cases: {}\n", report.cases.size(),
                      report.cases.size() + static_cast<std::size_t>(report.skipped), to_string(report.verdict));
  return text;
}

std::vector<Json> case_records(const ValidationReport& report) {
  std::vector<Json> records;
  for (const JudgedCase& c : report.cases) {
    const ValidationCase& asked = c.executed.asked;
    const MoeBlock* moe = first_moe(asked.architecture);
    Json json{{"stratum", asked.stratum},
              {"backend", asked.deployment.backend},
              {"dtype", asked.deployment.dtype ? Json(to_string(*asked.deployment.dtype)) : Json()},
              {"threads", asked.deployment.threads},
              {"name", asked.architecture.name},
              {"phase", to_string(asked.workload.phase)},
              {"hidden", asked.architecture.hidden},
              {"layers", asked.architecture.decoder.size()},
              {"tokens", step_tokens(asked.workload)},
              {"copies", asked.workload.copies},
              {"executed_s", c.outcome.measured_s},
              {"predicted_s", c.outcome.predicted_s},
              {"predicted_low_s", c.outcome.low_s},
              {"predicted_high_s", c.outcome.high_s},
              {"ape", std::abs(c.outcome.predicted_s / c.outcome.measured_s - 1)}};
    if (moe != nullptr) {
      json["width"] = moe->experts.front().expert.width;
      json["gated"] = moe->experts.front().expert.gated;
      json["experts"] = moe->expert_count();
      json["top_k"] = moe->router.top_k;
    }
    json["roofline_s"] = c.outcome.roofline_s ? Json(*c.outcome.roofline_s) : Json();
    json["nearest_s"] = c.outcome.nearest_s ? Json(*c.outcome.nearest_s) : Json();
    json["rerun_ratio"] = c.outcome.rerun_ratio ? Json(*c.outcome.rerun_ratio) : Json();
    json["executed_low_s"] = c.executed.timing.low.value();
    json["executed_high_s"] = c.executed.timing.high.value();
    json["executions"] = c.executed.timing.samples;
    json["preempted"] = c.executed.timing.preempted;
    records.push_back(std::move(json));
  }
  return records;
}

Json validation_json(const ValidationReport& report) {
  Json json;
  json["strata"] = Json::array();
  for (const StratumReport& s : report.strata) {
    Json stratum = summary_json(s.all);
    stratum["name"] = s.name;
    stratum["verdict"] = s.verdict ? Json(to_string(*s.verdict)) : Json();
    stratum["reasons"] = s.reasons;
    stratum["bands"] = Json::array();
    for (const auto& [name, summary] : s.bands) {
      Json band = summary_json(summary);
      band["tokens"] = name;
      stratum["bands"].push_back(band);
    }
    json["strata"].push_back(stratum);
  }
  json["noise_floor"] = report.strata.empty() || !report.strata.back().all.noise_mape
                            ? Json()
                            : Json(*report.strata.back().all.noise_mape);
  json["passed"] = report.verdict == Verdict::passed;
  json["verdict"] = to_string(report.verdict);
  json["skipped"] = report.skipped;
  json["notes"] = report.notes;
  json["cases"] = case_records(report);
  return json;
}

}  // namespace moecast
