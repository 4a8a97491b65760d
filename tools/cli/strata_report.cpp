#include "tools/cli/strata_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "models/core/quantity_text.h"

namespace moecast {
namespace {}  // namespace

Json summary_json(const ErrorSummary& s) {
  return {{"n", s.n},
          {"median_ape", s.median_ape},
          {"mape", s.mape},
          {"p90_ape", s.p90_ape},
          {"within_10_ratio", s.within_10_ratio},
          {"kendall_tau", number_or_null(s.kendall_tau)},
          {"coverage_90_ratio", s.coverage_90_ratio},
          {"bias_ratio", s.bias},
          {"baselines", {{"roofline", number_or_null(s.roofline_mape)}, {"nearest", number_or_null(s.nearest_mape)}}},
          {"noise_mape", number_or_null(s.noise_mape)},
          {"noise_p90", number_or_null(s.noise_p90)}};
}

Json stratum_json(const Stratum& stratum) {
  Json json{{"name", stratum.name}};
  json.update(summary_json(stratum.summary));
  return json;
}

std::string strata_text(const std::vector<Stratum>& strata, Format format) {
  Table table{{"stratum", "n", "median", "mean", "p90", "within 10 %", "tau", "in 90 %", "bias", "roofline", "nearest"},
              {}};
  for (const Stratum& stratum : strata) {
    const ErrorSummary& s = stratum.summary;
    table.rows.push_back({stratum.name, std::to_string(s.n), format_percent(s.median_ape), format_percent(s.mape),
                          format_percent(s.p90_ape), format_percent(s.within_10_ratio),
                          format_or_dash(s.kendall_tau, [](double tau) { return fmt::format("{:.3f}", tau); }),
                          format_percent(s.coverage_90_ratio), format_percent(s.bias),
                          format_or_dash(s.roofline_mape, format_percent),
                          format_or_dash(s.nearest_mape, format_percent)});
  }
  return render_table(table, format);
}

}  // namespace moecast
