#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/model_choice.h"
#include "tools/cli/output.h"
#include "tools/cli/progress_bar.h"
#include "tools/cli/strata_report.h"
#include "tools/loop/validate_serving.h"

namespace moecast {
namespace {

struct ServingValidationOptions {
  std::string table;
  std::string leave_out;
  bool fit = false;
  std::string law = "service";
  std::string data;
  std::string format = "table";
};

/// "Qwen/Qwen3-235B-A22B-FP8" as the zoo calls it: "qwen3-235b-a22b".
std::string zoo_name(std::string model) {
  model = model.substr(model.rfind('/') + 1);
  for (char& c : model) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view suffix : {"-fp8", "-fp4", "-nvfp4", "-bf16", "-instruct", "-chat", "-base", "-2507"}) {
      if (!model.ends_with(suffix)) continue;
      model.resize(model.size() - suffix.size());
      again = true;
    }
  }
  if (model.starts_with("meta-llama-")) model = model.substr(5);
  return model;
}

std::optional<Architecture> find_model(const std::string& model, const DataFolders& folders) {
  try {
    Architecture found = load_model(zoo_name(model), folders);
    // Qwen's published FP8 checkpoints hold a scale for every 128 x 128 block (weight_block_size of their config.json).
    if (model.starts_with("Qwen/") && model.ends_with("-FP8")) found.dtype = DType::fp8_block;
    return found;
  } catch (const UsageError&) {
    return std::nullopt;
  }
}

std::string find_machine(std::string system, const DataFolders& folders) {
  std::ranges::replace(system, '_', '-');
  for (const ProfileEntry& entry : find_profiles(folders)) {
    if (entry.name == system) return entry.folder;
  }
  return "";
}

Json law_json(const EngineService& law) {
  return {{"kernel_factor", law.kernel_factor}, {"layer_s", law.layer_s},
          {"request_s", law.request_s},         {"step_s", law.step_s},
          {"stall_share", law.stall_share},     {"prefill_factor", law.prefill_factor},
          {"first_token_s", law.first_token_s}};
}

std::string ranking_line(const DeploymentRanking& ranking) {
  return fmt::format("  {:<22} {:.3f}  {}\n", ranking.model, ranking.kendall_tau, ranking.pairs);
}

Json rankings_json(const std::vector<DeploymentRanking>& rankings) {
  Json all = Json::array();
  for (const DeploymentRanking& ranking : rankings) {
    all.push_back({{"model", ranking.model}, {"pairs", ranking.pairs}, {"kendall_tau", ranking.kendall_tau}});
  }
  return all;
}

std::string report_text(const ServingValidationReport& report, const ServingValidationOptions& options, Format format) {
  std::string text = strata_text(report.strata, format);
  text +=
      "\nerror = |predicted - measured| / measured; roofline = kernels of the step (of the prompt) alone;\n"
      "tpot, ttft: without rows whose twin differs by more than a quarter, and without vLLM on Qwen3-235B (bound by "
      "its "
      "host);\nttft: below saturation.\n";
  text += options.leave_out.empty() ? options.law == "host"
                                          ? "laws: host constants of the engines, fitted to logged steps of one model\n"
                                      : options.fit ? "laws fitted to this very table: its errors judge nothing\n"
                                                    : "laws: those of the engines\n"
                                    : fmt::format("laws of each {} fitted to the others\n", options.leave_out);
  for (const auto& [engine, law] : report.laws) {
    text += fmt::format("  {:<8} {}\n", engine.empty() ? "all" : engine, dump_json_line(law_json(law)));
  }
  text += "90 % of rows lie within (measured over predicted, below and above):\n";
  for (const auto& [engine, spread] : report.spreads) {
    text += fmt::format("  {:<8} tpot x{:.2f}, x{:.2f}, ttft x{:.2f}, x{:.2f}\n", engine.empty() ? "all" : engine,
                        std::exp(-spread.tpot[0]), std::exp(spread.tpot[1]), std::exp(-spread.ttft[0]),
                        std::exp(spread.ttft[1]));
  }
  text += "deployments of a model under the same load, put in order by TPOT (Kendall's tau, pairs):\n";
  for (const DeploymentRanking& ranking : report.rankings) text += ranking_line(ranking);
  text += "of runs that are both of current releases, both of replaced ones, or both of one with a reported defect:\n";
  for (const DeploymentRanking& ranking : report.rankings_comparable) text += ranking_line(ranking);
  for (const auto& [reason, rows] : report.not_judged) text += fmt::format("not judged: {} rows: {}\n", rows, reason);
  for (const std::string& note : report.notes) text += "note: " + note + "\n";
  return text;
}

int run(const ServingValidationOptions& options) {
  const Format format = parse_format(options.format);
  if (options.fit && !options.leave_out.empty()) {
    throw UsageError("--fit", "and --leave-out exclude each other", "leave one out");
  }
  if (options.law != "service" && options.law != "host") {
    throw UsageError("--step-law", "\"" + options.law + "\" is not known", "write service or host");
  }
  if (options.law == "host" && (options.fit || !options.leave_out.empty())) {
    throw UsageError("--step-law", "host is fitted to no load: --fit and --leave-out mean nothing", "leave one out");
  }
  const DataFolders folders = find_data_folders(options.data);
  ServingValidation request;
  request.table = options.table;
  request.engines = folders.engines;
  request.benchmarks = folders.shipped + "/benchmarks";
  request.leave_out = options.leave_out;
  request.fit = options.fit;
  request.host_law = options.law == "host";
  request.machine = [&](const std::string& system) { return find_machine(system, folders); };
  request.model = [&](const std::string& model) { return find_model(model, folders); };
  ProgressBar bar;
  request.progress = [&bar](double done) { bar.update("compiling", done, Seconds(0)); };
  const ServingValidationReport report = validate_serving(request);
  bar.clear();
  if (format == Format::table || format == Format::md) {
    write_stdout(report_text(report, options, format));
  } else if (format == Format::json) {
    Json json{{"strata", Json::array()}};
    for (const Stratum& stratum : report.strata) json["strata"].push_back(stratum_json(stratum));
    json["noise_floor"] = nullptr;
    json["passed"] = nullptr;
    json["laws"] = Json::object();
    for (const auto& [engine, law] : report.laws) json["laws"][engine.empty() ? "all" : engine] = law_json(law);
    json["spread"] = Json::object();
    for (const auto& [engine, spread] : report.spreads) {
      json["spread"][engine.empty() ? "all" : engine] = {{"tpot", spread.tpot}, {"ttft", spread.ttft}};
    }
    json["rankings"] = rankings_json(report.rankings);
    json["rankings_comparable"] = rankings_json(report.rankings_comparable);
    json["not_judged"] = Json::object();
    for (const auto& [reason, rows] : report.not_judged) json["not_judged"][reason] = rows;
    json["notes"] = report.notes;
    json["inputs"] = {{"table", options.table},
                      {"leave_out", options.leave_out.empty() ? Json() : Json(options.leave_out)},
                      {"fit", options.fit},
                      {"step_law", options.law},
                      {"rows", report.read}};
    write_stdout(render_records({json}, format, true));
  } else {
    std::vector<Json> records;
    for (const Stratum& stratum : report.strata) records.push_back(stratum_json(stratum));
    write_stdout(render_records(records, format, false));
  }
  return 0;
}

}  // namespace

void add_validate_serving_command(const Command& validate, CommandLine& line) {
  const auto options = std::make_shared<ServingValidationOptions>();
  const Command command =
      validate.add_subcommand("serving", "Predict measured TTFT and TPOT of deployments that serve");
  command.add_option("--table", options->table, "measured loads, e.g. aggregated_ttft_tpot.csv.gz")
      .type_name("FILE")
      .required();
  add_text_option(command, "--leave-out", options->leave_out, "GROUP",
                  "model, system, or model,system: laws of the engines fitted to the other groups of this table");
  command.add_flag("--fit", options->fit, "fit the laws of the engines to this table, and show them");
  add_text_option(command, "--step-law", options->law, "LAW",
                  "service (default): of the engines' services; host: host constants of the engines, fitted to logged "
                  "steps of one model and to nothing of this table");
  add_text_option(command, "--data", options->data, "FOLDER", "data folder (default: beside the program)");
  add_text_option(command, "--format", options->format, "FORMAT",
                  "table (default), md, json; csv and jsonl give one record a stratum");
  command.footer(
      "Examples:\n"
      "  moecast validate serving --table aggregated_ttft_tpot.csv.gz\n"
      "  moecast validate serving --table aggregated_ttft_tpot.csv.gz --leave-out model,system --format json\n");
  command.callback([options, &line] { line.run = [options] { return run(*options); }; });
}

}  // namespace moecast
