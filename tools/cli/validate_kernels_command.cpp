#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "hwprofiles/published_exchange.h"
#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/output.h"
#include "tools/cli/progress_bar.h"
#include "tools/cli/strata_report.h"
#include "tools/loop/validate_kernels.h"
#include "tools/loop/validate_published.h"

namespace moecast {
namespace {

struct KernelValidationOptions {
  std::string hw;
  std::string backend;
  std::vector<std::string> tables;
  std::string layout;
  std::string leave_out;
  std::string sister;
  std::string samples = "50";
  std::string seed = "1";
  std::string bound;
  std::string data;
  std::string format = "table";
};

std::string picks_text(const PickReport& picks) {
  const std::int64_t known = picks.agree + picks.disagree;
  if (known == 0) return {};
  std::string text =
      fmt::format("picked by the framework's rules: the recorded kernel for {} of {} rows", picks.agree, known);
  if (picks.assumed > 0) text += fmt::format(", {} of them by an assumed rule", picks.assumed);
  if (picks.no_rule > 0) text += fmt::format("; no rule for {} rows", picks.no_rule);
  if (!picks.example.empty()) text += "; not " + picks.example;
  return text + "\n";
}

Json picks_json(const PickReport& picks) {
  return {{"agree", picks.agree},
          {"disagree", picks.disagree},
          {"assumed", picks.assumed},
          {"no_rule", picks.no_rule},
          {"example", picks.example.empty() ? Json() : Json(picks.example)}};
}

std::string report_text(const KernelValidationReport& report, Format format) {
  std::string text = strata_text(report.strata, format);
  text +=
      "\nerror = |predicted - measured| / measured; in 90 % = share of measured values inside their 90 % interval;\n"
      "roofline and nearest = mean error of a constant-efficiency roofline and of the nearest measured curve.\n";
  for (const auto& [reason, rows] : report.not_judged) text += fmt::format("not judged: {} rows: {}\n", rows, reason);
  for (const auto& [reason, rows] : report.table.left_out) text += fmt::format("left out: {} rows: {}\n", rows, reason);
  if (report.table.duplicates > 0) {
    text += fmt::format("duplicate keys: {}, of which {} differ by more than 10 %\n", report.table.duplicates,
                        report.table.disagreeing);
  }
  text += picks_text(report.picks);
  for (const std::string& line : report.notes) text += "note: " + line + "\n";
  return text;
}

/// @return the exit code.
int print_report(const KernelValidationReport& report, const KernelValidationOptions& options,
                 const std::optional<double>& bound, Format format) {
  const bool passed = !bound || report.strata.front().summary.median_ape <= *bound;
  if (format == Format::table || format == Format::md) {
    write_stdout(report_text(report, format));
  } else if (format == Format::json) {
    Json json;
    json["strata"] = Json::array();
    for (const Stratum& stratum : report.strata) json["strata"].push_back(stratum_json(stratum));
    json["noise_floor"] = nullptr;  // a key is measured once in these tables
    json["passed"] = bound ? Json(passed) : Json();
    json["not_judged"] = Json::object();
    for (const auto& [reason, rows] : report.not_judged) json["not_judged"][reason] = rows;
    json["left_out"] = Json::object();
    for (const auto& [reason, rows] : report.table.left_out) json["left_out"][reason] = rows;
    json["duplicates"] = report.table.duplicates;
    json["kernel_picks"] = picks_json(report.picks);
    json["notes"] = report.notes;
    json["inputs"] = {{"hw_folder", profile_folder(find_data_folders(options.data), options.hw)},
                      {"tables", options.tables},
                      {"sister", options.sister.empty() ? Json() : Json(options.sister)},
                      {"backend", options.backend},
                      {"leave_out", options.leave_out.empty() ? Json() : Json(options.leave_out)},
                      {"bound", bound ? Json(*bound) : Json()}};
    write_stdout(render_records({json}, format, true));
  } else {
    std::vector<Json> records;
    for (const Stratum& stratum : report.strata) records.push_back(stratum_json(stratum));
    write_stdout(render_records(records, format, false));
  }
  return passed ? 0 : 1;
}

/// Rows that libraries published of machines of others: no profile holds them.
int run_published(const KernelValidationOptions& options, std::int64_t published, const std::optional<double>& bound,
                  Format format) {
  if (published != std::ssize(options.tables)) {
    throw UsageError("--table", "mixes published tables with measured ones", "validate them one after the other");
  }
  if (options.leave_out != "ranks") {
    throw UsageError("--leave-out", "ranks is needed for a published table: no profile holds its libraries",
                     "write --leave-out ranks");
  }
  const KernelValidationReport report = validate_published(options.tables);
  if (report.strata.empty()) {
    throw InputError(options.tables.front(), "holds no library with two EP sizes of which the bytes are known");
  }
  return print_report(report, options, bound, format);
}

int run(const KernelValidationOptions& options) {
  const Format format = parse_format(options.format);
  KernelValidation request;
  request.folder = profile_folder(find_data_folders(options.data), options.hw);
  request.tables = options.tables;
  request.layout = options.layout;
  request.leave_out = options.leave_out == "system" ? "machine" : options.leave_out;
  const bool machine = request.leave_out == "machine";
  const bool ranks = request.leave_out == "ranks" || request.leave_out == "nodes";
  if (machine && options.sister.empty()) {
    throw UsageError("--leave-out", "machine needs a sister machine", "write --leave-out machine --sister h100-sxm");
  }
  if (!options.sister.empty() && !machine && !ranks) {
    throw UsageError("--sister", "goes with --leave-out machine, ranks or nodes",
                     "write --leave-out machine --sister h100-sxm");
  }
  if (!options.sister.empty()) request.sister = profile_folder(find_data_folders(options.data), options.sister);
  request.samples = static_cast<int>(parse_count(options.samples, "--samples", 1, 1000000));
  request.seed = static_cast<std::uint64_t>(parse_count(options.seed, "--seed"));
  std::tie(request.framework, request.version) = split_backend(options.backend);
  std::optional<double> bound;
  if (!options.bound.empty()) bound = parse_number(options.bound, "--bound", 1e-6, 1e6);
  const std::int64_t published = options.layout.empty() ? std::ranges::count_if(options.tables, is_published_table) : 0;
  if (published > 0) return run_published(options, published, bound, format);
  ProgressBar bar;
  request.progress = [&bar](double done) { bar.update("predicting", done, Seconds(0)); };
  const KernelValidationReport report = validate_kernels(request);
  bar.clear();
  if (report.strata.empty()) {
    std::string reasons;
    for (const auto& [reason, rows] : report.not_judged) reasons += fmt::format("{} rows: {}; ", rows, reason);
    throw InputError(options.tables.front(),
                     "holds no row that can be judged" + (reasons.empty() ? "" : " (" + reasons + ")"),
                     "moecast explain --hw " + options.hw + " shows what the profile knows");
  }
  return print_report(report, options, bound, format);
}

}  // namespace

namespace {

Command add_table_command(const Command& validate, CommandLine& line, const char* name, const char* purpose) {
  const auto options = std::make_shared<KernelValidationOptions>();
  const Command command = validate.add_subcommand(name, purpose);
  add_text_option(command, "--hw", options->hw, "NAME", "profile: a name of `list hw` or a folder");
  command.get_option("--hw").required();
  command.add_option("--table", options->tables, "measured table, e.g. moe.vllm-0.24.0.csv.gz; several may follow")
      .type_name("FILE")
      .required()
      .take_all();
  add_text_option(command, "--backend", options->backend, "FRAMEWORK-VERSION",
                  "whose kernels these are (default: the file's name)");
  add_text_option(command, "--operator", options->layout, "KIND",
                  "moe, gemm, context_attention, nccl, ... (default: the file's name and columns)");
  add_text_option(command, "--leave-out", options->leave_out, "GROUP",
                  "predict each row by a model fitted to the table's other groups: shape, experts, inter, n, k, ranks, "
                  "nodes; or machine (also: system): fitted to a few rows and a sister machine");
  add_text_option(command, "--sister", options->sister, "NAME",
                  "with --leave-out machine, ranks or nodes: profile of a sister machine");
  add_text_option(command, "--samples", options->samples, "COUNT",
                  "with --leave-out machine: rows a kernel (default 50)");
  add_text_option(command, "--seed", options->seed, "NUMBER", "with --leave-out machine: another choice of rows");
  add_text_option(command, "--bound", options->bound, "RATIO", "exit code 1 when the median error of all is above");
  add_text_option(command, "--data", options->data, "FOLDER", "data folder (default: beside the program)");
  add_text_option(command, "--format", options->format, "FORMAT",
                  "table (default), md, json; csv and jsonl give one record a stratum");
  command.callback([options, &line] { line.run = [options] { return run(*options); }; });
  return command;
}

}  // namespace

void add_validate_kernels_command(const Command& validate, CommandLine& line) {
  add_table_command(validate, line, "kernels", "Predict every row of a table of measured kernels")
      .footer(
          "No row of the table is used for its prediction beyond what the profile holds.\n\n"
          "Examples:\n"
          "  moecast validate kernels --hw h200-sxm --backend vllm-0.24.0 --table moe.vllm-0.24.0.csv.gz\n"
          "  moecast validate kernels --hw h200-sxm --table moe.vllm-0.24.0.csv.gz --leave-out shape --format json\n"
          "  moecast validate kernels --hw h200-sxm --table moe.vllm-0.24.0.csv.gz --leave-out machine --sister "
          "h100-sxm\n"
          "  moecast validate kernels --hw b200-sxm --table gemm.vllm-0.24.0.csv.gz --leave-out n --bound 0.05\n");
  add_table_command(validate, line, "collectives",
                    "Predict every row of tables of measured collectives, and of dispatch and combine")
      .footer(
          "Kinds of tables: nccl (all four collectives), custom_allreduce, wideep_deepep_ll, wideep_deepep_normal,\n"
          "nvlink_one_sided. Intervals of a hold-out come from all tables of a kind that are given together. A table "
          "of\n"
          "published exchanges (columns op, library, gpu, nodes, ep, ...) is judged by a law of three constants a "
          "library\n"
          "and mode, whole EP sizes left out.\n\n"
          "Examples:\n"
          "  moecast validate collectives --hw h100-sxm --table nccl.nccl-2.29.2.csv.gz\n"
          "  moecast validate collectives --hw h100-sxm --table nccl.nccl-2.29.2.csv.gz --leave-out ranks\n"
          "  moecast validate collectives --hw h200-sxm --table custom_allreduce.*.csv.gz --leave-out ranks --sister "
          "h100-sxm\n"
          "  moecast validate collectives --hw h100-sxm --table wideep_deepep_ll.sglang-0.5.6.post2.csv.gz "
          "--leave-out nodes\n"
          "  moecast validate collectives --hw h100-sxm --table published_all2all.csv --leave-out ranks\n");
}

}  // namespace moecast
