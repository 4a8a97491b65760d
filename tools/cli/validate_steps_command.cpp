#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/model_choice.h"
#include "tools/cli/output.h"
#include "tools/cli/strata_report.h"
#include "tools/loop/validate_steps.h"

namespace moecast {
namespace {

struct StepValidationOptions {
  std::string model;
  std::string dtype;
  std::string hw;
  std::string backend;
  std::string tp = "1", ep = "1", dp = "1", moe_tp;
  std::string table;
  std::string reference;
  bool fit = false;
  std::string data;
  std::string format = "table";
};

int degree(const std::string& text, const char* flag) { return static_cast<int>(parse_count(text, flag, 1, 100000)); }

Json host_json(const EngineHost& host) {
  Json json = Json::object();
  const auto names = EngineHost::names();
  const auto values = host.values();
  for (std::size_t i = 0; i < names.size(); ++i) json[std::string(names[i])] = values[i];
  return json;
}

std::string report_text(const StepValidationReport& report, const StepValidationOptions& options, Format format) {
  std::string text = strata_text(report.strata, format);
  text += fmt::format(
      "\nerror = |predicted - logged| / logged; in 90 % = share of logged values inside their 90 % interval;\n"
      "roofline = bytes at 0.7 of the bandwidth or operations at half of the peak, an operator after the other;\n"
      "nearest = the nearest step of --reference as it was logged;\n"
      "time of the whole run, predicted over measured: {:.3f}\n",
      report.run_ratio);
  for (const auto& [segment, ratio] : report.segment_ratios) {
    text += fmt::format("  of its part \"{}\": {:.3f}\n", printable(segment), ratio);
  }
  text += options.fit ? "host constants fitted to this very table: its errors judge nothing\n"
                      : "host constants: " + report.host_source + "\n";
  if (options.fit) {
    const auto names = EngineHost::names();
    const auto values = report.host.values();
    for (std::size_t i = 0; i < names.size(); ++i) text += fmt::format("  {:<20} {:.6g}\n", names[i], values[i]);
    text +=
        fmt::format("  intervals: decode {:.3f}, prefill {:.3f}\n", report.decode_interval, report.prefill_interval);
  }
  for (const auto& [reason, steps] : report.not_judged)
    text += fmt::format("not judged: {} steps: {}\n", steps, reason);
  for (const std::string& part : report.operators.not_executed) text += "not in the step: " + part + "\n";
  for (const std::string& line : report.operators.notes) text += "note: " + line + "\n";
  return text;
}

int run(const StepValidationOptions& options) {
  const Format format = parse_format(options.format);
  const DataFolders folders = find_data_folders(options.data);
  StepValidation request;
  request.hw_folder = profile_folder(folders, options.hw);
  request.engines = folders.engines;
  request.table = options.table;
  request.architecture = load_model(options.model, folders);
  request.deployment.tp = degree(options.tp, "--tp");
  request.deployment.ep = degree(options.ep, "--ep");
  request.deployment.dp = degree(options.dp, "--dp");
  if (!options.moe_tp.empty()) request.deployment.moe_tp = degree(options.moe_tp, "--moe-tp");
  request.deployment.backend = options.backend;
  if (!options.dtype.empty()) {
    request.deployment.dtype = parse_dtype(options.dtype);
    if (!request.deployment.dtype) {
      throw UsageError("--dtype", fmt::format("\"{}\" is no number format", options.dtype), "e.g. bf16, fp8_block");
    }
  }
  request.fit = options.fit;
  request.reference = options.reference;
  const StepValidationReport report = validate_steps(request);
  if (format == Format::table || format == Format::md) {
    write_stdout(report_text(report, options, format));
  } else if (format == Format::json) {
    Json json{{"strata", Json::array()}};
    for (const Stratum& stratum : report.strata) json["strata"].push_back(stratum_json(stratum));
    json["noise_floor"] = nullptr;  // no step of a log is repeated
    json["passed"] = nullptr;       // no bar was given
    json["run_ratio"] = report.run_ratio;
    json["segment_ratios"] = report.segment_ratios;
    json["host"] = host_json(report.host);
    json["intervals"] = {{"decode", report.decode_interval}, {"prefill", report.prefill_interval}};
    json["not_judged"] = Json::object();
    for (const auto& [reason, steps] : report.not_judged) json["not_judged"][reason] = steps;
    json["not_executed"] = report.operators.not_executed;
    json["notes"] = report.operators.notes;
    json["operators"] = Json::array();
    for (const StepOperator& op : report.operators.operators) {
      json["operators"].push_back(
          {{"name", op.name}, {"kind", to_string(op.group)}, {"count", op.count}, {"kernel", op.kernel}});
    }
    json["inputs"] = {{"hw_folder", request.hw_folder},
                      {"table", options.table},
                      {"model", options.model},
                      {"backend", options.backend},
                      {"tp", request.deployment.tp},
                      {"ep", request.deployment.ep},
                      {"dp", request.deployment.dp},
                      {"fit", options.fit},
                      {"reference", options.reference.empty() ? Json() : Json(options.reference)},
                      {"host_source", report.host_source}};
    write_stdout(render_records({json}, format, true));
  } else {
    std::vector<Json> records;
    for (const Stratum& stratum : report.strata) records.push_back(stratum_json(stratum));
    write_stdout(render_records(records, format, false));
  }
  return 0;
}

}  // namespace

void add_validate_steps_command(const Command& validate, CommandLine& line) {
  const auto options = std::make_shared<StepValidationOptions>();
  const Command command = validate.add_subcommand("steps", "Predict every recorded step of a serving engine");
  add_text_option(command, "--model", options->model, "NAME|FILE", "model: a name of `list models` or a config.json");
  add_text_option(command, "--hw", options->hw, "NAME", "profile: a name of `list hw` or a folder");
  add_text_option(command, "--backend", options->backend, "ENGINE-VERSION", "engine, and the version of its kernels");
  command.add_option("--table", options->table, "recorded steps, e.g. MODEL.SYSTEM.ENGINE.tp.tp2_ep2.csv.gz")
      .type_name("FILE")
      .required();
  for (const char* flag : {"--model", "--hw", "--backend"}) command.get_option(flag).required();
  add_text_option(command, "--dtype", options->dtype, "FORMAT", "of the weights (default: the model's)");
  add_text_option(command, "--tp", options->tp, "COUNT", "tensor parallelism (default 1)");
  add_text_option(command, "--ep", options->ep, "COUNT", "expert parallelism (default 1)");
  add_text_option(command, "--dp", options->dp, "COUNT", "replicas of attention (default 1)");
  add_text_option(command, "--moe-tp", options->moe_tp, "COUNT", "ranks that split an expert (default: tp dp / ep)");
  command
      .add_option("--reference", options->reference,
                  "steps of another deployment: the nearest of them is the baseline \"nearest\" (default: none)")
      .type_name("FILE");
  command.add_flag("--fit", options->fit, "fit the engine's host constants to this table, and show them");
  add_text_option(command, "--data", options->data, "FOLDER", "data folder (default: beside the program)");
  add_text_option(command, "--format", options->format, "FORMAT",
                  "table (default), md, json; csv and jsonl give one record a stratum");
  command.footer(
      "Strata: decode, mixed, prefill, all. The first 30 steps are warm-up and not judged.\n\n"
      "Examples:\n"
      "  moecast validate steps --model qwen3.6-35b-a3b --dtype bf16 --hw b300-sxm --backend vllm-0.24.0 --tp 2 --ep 2 "
      "--table qwen3.6-35b-a3b.b300_sxm.vllm-0.20.1.tp.tp2_ep2.csv.gz\n"
      "  moecast validate steps --model qwen3.6-35b-a3b --hw b300-sxm --backend vllm-0.24.0 --dp 4 --ep 4 --table "
      "FILE.csv.gz --format json\n");
  command.callback([options, &line] { line.run = [options] { return run(*options); }; });
}

}  // namespace moecast
