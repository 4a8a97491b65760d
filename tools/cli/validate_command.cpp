#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/ep_validation.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/measure_options.h"
#include "tools/cli/model_choice.h"
#include "tools/cli/output.h"
#include "tools/cli/progress_bar.h"
#include "tools/cli/restart.h"
#include "tools/cli/validation_report.h"
#include "tools/loop/interrupt.h"
#include "tools/loop/validate_machine.h"

namespace moecast {
namespace {

struct ValidateOptions {
  std::string hw = "this-machine";
  std::string cases = "40";
  std::string seed = "1";
  std::string rounds = "4";
  std::string timing = "interleaved";
  std::string model;
  std::string configurations;
  std::string tokens;
  std::string context;
  std::string threads;
  std::string dtype;
  std::string backend;
  std::string data;
  std::string format = "table";
  bool ep = false;
  EpValidateOptions over_ranks{};
};

bool parse_timing(const std::string& text) {
  if (text == "interleaved" || text == "stored") return text == "interleaved";
  throw UsageError("--timing", fmt::format("\"{}\" is neither interleaved nor stored", text),
                   "interleaved times the kernels again beside the layers");
}

/// The model to execute instead of drawn cases.
void choose_model(const ValidateOptions& options, ValidateRequest& request) {
  request.configurations = options.configurations;
  if (!options.configurations.empty() && !options.model.empty()) {
    throw UsageError("--configurations", "a file and --model at once", "leave one out");
  }
  if (options.model.empty()) {
    for (const auto& [flag, text] : {std::pair("--tokens", options.tokens), std::pair("--context", options.context)}) {
      if (!text.empty()) throw UsageError(flag, "means nothing without --model", "write --model NAME");
    }
    return;
  }
  request.model = load_model(options.model, find_data_folders(options.data));
  request.tokens = parse_range(options.tokens.empty() ? "1,16,128" : options.tokens, "--tokens", 1, 1 << 16);
  request.context = options.context.empty() ? 128 : parse_count(options.context, "--context", 0, 1 << 20);
}

/// Layers over ranks instead of on this machine alone.
int run_over_ranks(const Command& command, const ValidateOptions& options) {
  for (const char* flag : {"--hw", "--model", "--configurations", "--tokens", "--context", "--rounds", "--timing",
                           "--backend", "--dtype", "--threads"}) {
    if (command.count(flag) > 0) throw UsageError(flag, "means nothing with --ep", "leave it out");
  }
  EpValidateOptions ep = options.over_ranks;
  if (command.count("--cases") > 0) ep.cases = options.cases;
  ep.seed = options.seed;
  ep.data = options.data;
  ep.format = options.format;
  return run_validate_ep(ep);
}

void refuse_ep_options(const Command& command) {
  for (const char* flag : {"--cluster", "--ranks", "--mpirun", "--repeats"}) {
    if (command.count(flag) > 0) throw UsageError(flag, "goes with --ep", "write --ep too");
  }
}

int run_validate(const ValidateOptions& options) {
  const InterruptGuard guard;  // before any library starts threads
  const Format format = parse_format(options.format);
  ValidateRequest request;
  request.cases = static_cast<int>(parse_count(options.cases, "--cases", 1, 100000));
  request.seed = static_cast<std::uint64_t>(parse_count(options.seed, "--seed"));
  request.rounds = static_cast<int>(parse_count(options.rounds, "--rounds", 2, 100));
  request.interleaved = parse_timing(options.timing);
  choose_model(options, request);
  if (!options.backend.empty() || !options.dtype.empty() || !options.threads.empty()) {
    request.only = parse_combinations(options.backend, options.dtype, options.threads);
  }
  const HardwareChoice hardware = choose_hardware(options.hw, find_data_folders(options.data));
  request.folder = hardware.folder;
  request.interrupted = &InterruptGuard::flag();
  ProgressBar bar;
  request.progress = [&bar](const std::string& stage, double done, Seconds left) { bar.update(stage, done, left); };
  const ValidateOutcome outcome = validate_machine(request);
  bar.clear();
  if (!outcome.complete) warn("interrupted: the table holds what was executed until then");
  const ValidationReport& report = outcome.report;
  if (format == Format::table || format == Format::md) {
    write_stdout(validation_text(report, format));
  } else if (format == Format::json) {
    Json json = validation_json(report);
    json["inputs"] = {{"hw_folder", request.folder}, {"cases", request.cases},   {"seed", request.seed},
                      {"rounds", request.rounds},    {"timing", options.timing}, {"kernels_timed", outcome.kernels}};
    write_stdout(render_records({json}, format, true));
  } else {
    write_stdout(render_records(case_records(report), format, false));
  }
  if (!outcome.complete) return 130;
  return report.verdict == Verdict::missed ? 1 : 0;
}

}  // namespace

void add_validate_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<ValidateOptions>();
  const Command command =
      app.add_subcommand("validate", "Execute layers and models that were not profiled, and compare the predictions");
  add_text_option(command, "--hw", options->hw, "NAME", "this-machine (default), a name of `list hw` or a folder");
  add_text_option(command, "--cases", options->cases, "COUNT", "layers and models to draw (default 40)");
  add_text_option(command, "--seed", options->seed, "NUMBER", "another seed, other cases (default 1)");
  add_text_option(command, "--model", options->model, "NAME|FILE", "execute this model or layer instead of drawn ones");
  add_text_option(
      command, "--configurations", options->configurations, "FILE",
      "execute those of this file, one JSON object a line with architecture, phase, batch, context, prompt");
  add_text_option(command, "--tokens", options->tokens, "RANGE",
                  "with --model: sequences of a step (default 1,16,128)");
  add_text_option(command, "--context", options->context, "COUNT",
                  "with --model: earlier tokens of each (default 128)");
  add_text_option(command, "--rounds", options->rounds, "COUNT", "interleaved rounds, at least 2 (default 4)");
  add_text_option(command, "--timing", options->timing, "HOW",
                  "interleaved (default): time the profile's kernels in the same rounds and calibrate from them; "
                  "stored: use the profile's calibration");
  add_text_option(command, "--backend", options->backend, "LIST", "only these of the profile's backends");
  add_text_option(command, "--dtype", options->dtype, "LIST", "only these: fp32, bf16");
  add_text_option(command, "--threads", options->threads, "RANGE", "only these thread counts");
  add_text_option(command, "--data", options->data, "FOLDER", "data folder (default: beside the program)");
  add_text_option(command, "--format", options->format, "FORMAT",
                  "table (default), md, json; csv and jsonl give one record a case");
  command.add_flag("--ep", options->ep,
                   "MoE layers and all-to-all over MPI ranks: a few probes, then predicted and executed");
  EpValidateOptions& ranks = options->over_ranks;
  add_text_option(command, "--cluster", ranks.cluster, "NAME|FILE",
                  "with --ep: how the hosts are wired (default: $MOECAST_CLUSTER)");
  add_text_option(command, "--ranks", ranks.ranks, "COUNT", "with --ep: ranks (default: all of the cluster)");
  add_text_option(command, "--mpirun", ranks.mpirun, "COMMAND",
                  "with --ep: what starts programs on the hosts (default: $MOECAST_MPIRUN, else mpirun)");
  add_text_option(command, "--repeats", ranks.repeats, "COUNT", "with --ep: of every measurement (default 7)");
  command.footer(
      "Exit code 1 when a bar is missed; a noisy run says undecided.\n\n"
      "Examples:\n"
      "  moecast validate --hw this-machine --cases 200\n"
      "  moecast validate --backend onednn --dtype bf16 --threads 1 --cases 60 --seed 7\n"
      "  moecast validate --model tiny-mlp-moe --tokens 1-4096*4\n"
      "  moecast validate --format csv > cases.csv\n"
      "  tools/dev/testbed --hosts 8 --racks 2 --uplink 400mbit -- moecast validate --ep\n"
      "  moecast validate kernels --hw h200-sxm --backend vllm-0.24.0 --table moe.vllm-0.24.0.csv.gz\n");
  add_validate_kernels_command(command, line);
  add_validate_steps_command(command, line);
  add_validate_serving_command(command, line);
  command.callback([options, &line, command] {
    if (command.has_subcommand()) return;  // `validate kernels` has set its own
    line.run = [options, &line, command] {
      if (options->ep) return run_over_ranks(command, *options);
      refuse_ep_options(command);
      restart_with_openblas_core(line.argv);
      return run_validate(*options);
    };
  });
}

}  // namespace moecast
