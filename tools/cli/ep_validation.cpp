#include "tools/cli/ep_validation.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/event_options.h"
#include "tools/cli/output.h"
#include "tools/cli/progress_bar.h"
#include "tools/cli/strata_report.h"
#include "tools/loop/interrupt.h"
#include "tools/loop/validate_ep.h"

namespace moecast {
namespace {

Json work_json(const WorkLaw& law) {
  const auto rate = [](double seconds) { return seconds > 0 ? Json(1 / seconds) : Json(); };
  return {{"call_s", law.call_s},
          {"flops_per_s", rate(law.flop_s)},
          {"weight_bytes_per_s", rate(law.weight_byte_s)},
          {"row_bytes_per_s", rate(law.row_byte_s)}};
}

Json law_json(const HostRanks& law) {
  return {{"start_s", law.start_s},
          {"message_s", law.message_s},
          {"burst_bytes", law.burst_bytes},
          {"port_efficiency", law.port_efficiency},
          {"leaf_efficiency", law.leaf_efficiency},
          {"experts", work_json(law.experts)},
          {"local", work_json(law.local)},
          {"cores", law.cores},
          {"exchange_sigma", law.exchange_sigma},
          {"work_sigma", law.work_sigma}};
}

std::string law_text(const EpValidationReport& report) {
  const HostRanks& law = report.law;
  return fmt::format(
      "fitted to {} probes ({}): exchange {:.0f} us + {:.0f} us a peer + bytes beyond {:.0f} KB at {:.1f} % of ports;\n"
      "leaf links at {:.1f} %; ranks side by side do {:.2f} ranks' worth of work\n\n",
      report.probes, report.library, 1e6 * law.start_s, 1e6 * law.message_s, law.burst_bytes / 1e3,
      100 * law.port_efficiency, 100 * law.leaf_efficiency, law.cores);
}

Json case_json(const EpCase& judged) {
  const MpiLayer& layer = judged.point.layer;
  const Outcome& outcome = judged.outcome;
  Json phases = Json::object();
  for (const auto& [name, seconds] : judged.phases) phases[name + "_s"] = seconds;
  return {{"kind", to_string(judged.point.kind)},
          {"phases", phases},
          {"tokens_per_rank", layer.tokens},
          {"hidden", layer.hidden},
          {"width", layer.width},
          {"experts", layer.experts},
          {"top_k", layer.top_k},
          {"gated", layer.gated},
          {"zipf", layer.zipf},
          {"ranks_of_an_expert", layer.tp},
          {"attention_heads", layer.heads},
          {"bytes", judged.point.matrix ? Json(judged.point.matrix->total()) : Json()},
          {"executed_s", outcome.measured_s},
          {"predicted_s", outcome.predicted_s},
          {"predicted_low_s", outcome.low_s},
          {"predicted_high_s", outcome.high_s},
          {"ape", std::abs(outcome.predicted_s / outcome.measured_s - 1)},
          {"rerun_ratio", outcome.rerun_ratio ? Json(*outcome.rerun_ratio) : Json()}};
}

/// Bars that are missed, in words.
std::vector<std::string> missed_bars(const std::vector<Stratum>& strata) {
  std::vector<std::string> missed;
  for (const Stratum& stratum : strata) {
    const double bar = ep_bar(stratum.name);
    if (bar > 0 && stratum.summary.mape > bar) {
      missed.push_back(
          fmt::format("{}: mean error {:.1f} % above {:.0f} %", stratum.name, 100 * stratum.summary.mape, 100 * bar));
    }
  }
  return missed;
}

}  // namespace

int run_validate_ep(const EpValidateOptions& options) {
  const InterruptGuard guard;
  const Format format = parse_format(options.format);
  EpValidation request;
  const char* known = std::getenv("MOECAST_CLUSTER");
  const std::string cluster = !options.cluster.empty() ? options.cluster : known != nullptr ? known : "";
  if (cluster.empty()) {
    throw UsageError("--cluster", "is needed: nothing says how the hosts are wired",
                     "tools/dev/testbed --hosts 4 -- moecast validate --ep");
  }
  request.cluster = choose_cluster(cluster, "", find_data_folders(options.data));
  const std::int64_t most = std::int64_t{request.cluster.most_nodes} * request.cluster.devices_per_node;
  request.ranks = static_cast<int>(options.ranks.empty() ? most : parse_count(options.ranks, "--ranks", 2, most));
  request.cases = static_cast<int>(parse_count(options.cases, "--cases", 2, 10000));
  request.repeats = static_cast<int>(parse_count(options.repeats, "--repeats", 2, 1000));
  request.seed = static_cast<std::uint64_t>(parse_count(options.seed, "--seed"));
  request.launcher.command = mpirun_command(options.mpirun);
  request.launcher.program = find_mpi_program();
  request.launcher.interrupted = &InterruptGuard::flag();
  ProgressBar bar;
  request.progress = [&bar](const std::string& stage, double done) { bar.update(stage, done, Seconds(0)); };
  EpValidationReport report;
  try {
    report = validate_ep(request);
  } catch (const MpiInterrupted&) {
    bar.clear();
    note("interrupted: nothing was judged");
    return 130;
  }
  bar.clear();
  const std::vector<std::string> missed = missed_bars(report.strata);
  if (format == Format::table || format == Format::md) {
    std::string text = law_text(report) + strata_text(report.strata, format);
    text +=
        "\nerror = |predicted - executed| / executed; roofline = all bytes and rows spread evenly;\n"
        "nearest = the nearest exchange of equal parts, scaled by bytes.\n";
    for (const std::string& line : missed) text += "missed: " + line + "\n";
    write_stdout(text + fmt::format("{} cases: {}\n", report.cases.size(), missed.empty() ? "passed" : "missed"));
  } else if (format == Format::json) {
    Json json{{"strata", Json::array()}, {"cases", Json::array()}};
    for (const Stratum& stratum : report.strata) json["strata"].push_back(stratum_json(stratum));
    for (const EpCase& judged : report.cases) json["cases"].push_back(case_json(judged));
    const auto& noise = report.strata.front().summary.noise_mape;
    json["noise_floor"] = noise ? Json(*noise) : Json();
    json["passed"] = missed.empty();
    json["missed"] = missed;
    json["law"] = law_json(report.law);
    json["inputs"] = {{"cluster", request.cluster.name}, {"ranks", request.ranks},
                      {"library", report.library},       {"seed", request.seed},
                      {"repeats", request.repeats},      {"probes", report.probes}};
    write_stdout(render_records({json}, format, true));
  } else {
    std::vector<Json> records;
    for (const EpCase& judged : report.cases) records.push_back(case_json(judged));
    write_stdout(render_records(records, format, false));
  }
  return missed.empty() ? 0 : 1;
}

}  // namespace moecast
