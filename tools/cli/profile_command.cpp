#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "profiler/environment.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/gpu_profile_command.h"
#include "tools/cli/measure_options.h"
#include "tools/cli/mpi_profile.h"
#include "tools/cli/output.h"
#include "tools/cli/progress_bar.h"
#include "tools/cli/restart.h"
#include "tools/loop/interrupt.h"
#include "tools/loop/machine_record.h"
#include "tools/loop/partial_profile.h"
#include "tools/loop/profile_session.h"

namespace moecast {
namespace {

struct ProfileOptions {
  std::string device = "cpu";
  std::string budget;  ///< empty = the default of the device
  std::string threads;
  std::string dtype;
  std::string backend;
  std::string name;
  std::string out;
  std::string format = "table";
  bool fresh = false;
  MpiProfileOptions mpi{};
};

std::string rows_text(const ProfileOutcome& outcome) {
  std::string text;
  for (const GemmCalibration& g : outcome.calibration.gemms) {
    text += fmt::format(
        "  {:<9} {:<5} {} thread{}  {:>4} points, left-out error {} (m <= 16), {} (17-256), {} (> 256)\n", g.backend,
        to_string(g.dtype), g.threads, g.threads == 1 ? " " : "s", g.points, format_percent(g.median_error[0]),
        format_percent(g.median_error[1]), format_percent(g.median_error[2]));
  }
  return text;
}

std::string as_text(const ProfileOutcome& outcome, const std::string& folder) {
  std::string text = fmt::format("profile   {}\n", folder);
  text += fmt::format("points    {} measured, {} of them where the calibration was least sure{}\n", outcome.points,
                      outcome.least_sure, outcome.resumed > 0 ? fmt::format(", {} resumed", outcome.resumed) : "");
  text += fmt::format("precision {} (median half width of a point's 95 % interval), {} samples preempted\n",
                      format_percent(outcome.precision), outcome.preempted);
  text += fmt::format("noise     {} between two separate runs\n", format_or_dash(outcome.noise_floor, format_percent));
  text += "GEMMs\n" + rows_text(outcome);
  if (!outcome.grouped.empty()) text += "experts over ragged rows, against the sum of their kernels\n";
  for (const GroupedCheck& check : outcome.grouped) {
    text +=
        fmt::format("  {:<9} {:<5} {} thread{}  {:>4} points, median error {}\n", check.backend, to_string(check.dtype),
                    check.threads, check.threads == 1 ? " " : "s", check.points, format_percent(check.median_ape));
  }
  for (const std::string& line : outcome.profile.notes) text += fmt::format("note      {}\n", line);
  return text;
}

Json as_json(const ProfileOutcome& outcome, const std::string& folder) {
  Json json{{"folder", folder},
            {"name", outcome.profile.name},
            {"points", outcome.points},
            {"least_sure_points", outcome.least_sure},
            {"resumed_points", outcome.resumed},
            {"precision_ratio", outcome.precision},
            {"noise_floor_ratio", outcome.noise_floor ? Json(*outcome.noise_floor) : Json()},
            {"preempted_samples", outcome.preempted},
            {"complete", outcome.complete},
            {"notes", outcome.profile.notes}};
  json["gemms"] = Json::array();
  for (const GemmCalibration& g : outcome.calibration.gemms) {
    json["gemms"].push_back({{"backend", g.backend},
                             {"dtype", to_string(g.dtype)},
                             {"threads", g.threads},
                             {"points", g.points},
                             {"left_out_median_ape", g.median_error}});
  }
  json["grouped"] = Json::array();
  for (const GroupedCheck& check : outcome.grouped) {
    json["grouped"].push_back({{"backend", check.backend},
                               {"dtype", to_string(check.dtype)},
                               {"threads", check.threads},
                               {"points", check.points},
                               {"median_ape", check.median_ape}});
  }
  return json;
}

/// A name becomes a folder of that name. @throws UsageError
std::string checked_name(const std::string& name) {
  const bool plain =
      std::all_of(name.begin(), name.end(), [](unsigned char c) { return c > ' ' && c != '/' && c < 127; });
  if (!plain || name.starts_with('.')) {
    throw UsageError("--name", fmt::format("\"{}\" is no name of a profile", name),
                     "write letters, digits and dashes; --out chooses a folder");
  }
  return name;
}

/// FOLDER.partial lies beside the folder, not in it.
std::string without_end_slashes(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

int profile_a_gpu(const ProfileOptions& options) {
  if (!options.threads.empty()) throw UsageError("--threads", "a GPU has no thread counts to choose", "leave it out");
  if (!options.backend.empty()) {
    throw UsageError("--backend", "chooses CPU libraries; a GPU is measured with cuBLAS and own kernels",
                     "leave it out");
  }
  GpuProfileOptions gpu;
  gpu.device = options.device;
  if (!options.budget.empty()) gpu.budget = options.budget;
  gpu.dtype = options.dtype;
  gpu.name = options.name.empty() ? "" : checked_name(options.name);
  gpu.out = without_end_slashes(options.out);
  gpu.format = options.format;
  gpu.fresh = options.fresh;
  return run_gpu_profile(gpu);
}

int profile_ranks(const Command& command, const ProfileOptions& options) {
  for (const char* flag : {"--budget", "--threads", "--dtype", "--backend", "--name", "--fresh"}) {
    if (command.count(flag) > 0) throw UsageError(flag, "means nothing with --device mpi", "leave it out");
  }
  MpiProfileOptions mpi = options.mpi;
  mpi.out = options.out;
  mpi.format = options.format;
  return run_mpi_profile(mpi);
}

void refuse_mpi_options(const Command& command) {
  for (const char* flag : {"--ranks", "--mpirun", "--matrix", "--repeats"}) {
    if (command.count(flag) > 0) throw UsageError(flag, "goes with --device mpi", "write --device mpi");
  }
}

int run_profile(const ProfileOptions& options) {
  if (is_gpu_device(options.device)) return profile_a_gpu(options);
  const InterruptGuard guard;  // before any library starts threads
  const Format format = parse_format(options.format);
  if (options.device != "cpu") {
    throw UsageError("--device", fmt::format("\"{}\" is not a device", options.device), "cpu, cuda, cuda:1 or mpi");
  }
  ProfileRequest request;
  const std::string budget = options.budget.empty() ? "90s" : options.budget;
  request.budget = parse_seconds(budget, "--budget");
  if (request.budget.value() < 5 || request.budget.value() > 86400) {
    throw UsageError("--budget", fmt::format("{} is outside 5s to 24h", budget), "90s is the default");
  }
  request.combinations = parse_combinations(options.backend, options.dtype, options.threads);
  request.name = options.name.empty() ? machine_name(read_environment()) : checked_name(options.name);
  request.folder =
      options.out.empty() ? find_data_folders("").own + "/" + request.name : without_end_slashes(options.out);
  check_profile_target(request.folder);
  request.fresh = options.fresh;
  request.interrupted = &InterruptGuard::flag();
  ProgressBar bar;
  request.progress = [&bar](const std::string& stage, double done, Seconds left) { bar.update(stage, done, left); };
  const ProfileOutcome outcome = profile_machine(request);
  bar.clear();
  const bool bf16 = std::any_of(request.combinations.begin(), request.combinations.end(),
                                [](const KernelSetting& c) { return c.dtype == DType::bf16; });
  if (options.dtype.empty() && !bf16) note("bf16 is left out: none of these backends computes it on this CPU");
  if (!outcome.complete) {
    note(fmt::format("interrupted: {} points are kept in {}.partial; the same command goes on from there",
                     outcome.points, request.folder));
    return 130;
  }
  const bool table = format == Format::table || format == Format::md;
  write_stdout(table ? as_text(outcome, request.folder)
                     : render_records({as_json(outcome, request.folder)}, format, true));
  return 0;
}

}  // namespace

void add_profile_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<ProfileOptions>();
  const Command command = app.add_subcommand("profile", "Measure this machine's kernels and calibrate from them");
  add_text_option(command, "--device", options->device, "DEVICE",
                  "cpu (default), cuda, cuda:1 for the second GPU, mpi for what lies between ranks");
  add_text_option(command, "--budget", options->budget, "TIME",
                  "time to measure for, 5s to 24h (default 90s; cuda: 4min)");
  add_text_option(command, "--threads", options->threads, "RANGE", "thread counts (default: 1 and all CPUs)");
  add_text_option(command, "--dtype", options->dtype, "LIST", "fp32, bf16 (default: both, where the CPU has them)");
  add_text_option(command, "--backend", options->backend, "LIST", "onednn, openblas, eigen (default: the first two)");
  add_text_option(command, "--name", options->name, "NAME", "name of the profile (default: after the CPU)");
  add_text_option(command, "--out", options->out, "FOLDER",
                  "folder of the profile (default: where `list hw` looks); of mpi a JSON file (default: none)");
  add_text_option(command, "--format", options->format, "FORMAT", "table (default), md, csv, json, jsonl");
  command.add_flag("--fresh", options->fresh, "forget what an interrupted run has measured");
  add_text_option(command, "--ranks", options->mpi.ranks, "COUNT", "mpi: ranks");
  add_text_option(command, "--mpirun", options->mpi.mpirun, "COMMAND",
                  "mpi: what starts programs on the hosts (default: $MOECAST_MPIRUN, else mpirun)");
  add_text_option(command, "--matrix", options->mpi.matrix, "FILE",
                  "mpi: JSON, bytes from each rank (row) to each rank: all-to-all-v; or a list of such matrices");
  add_text_option(command, "--repeats", options->mpi.repeats, "COUNT", "mpi: of every measurement (default 11)");
  command.footer(
      "An interrupted run keeps what it has; the same command goes on from there.\n\n"
      "Examples:\n"
      "  moecast profile\n"
      "  moecast profile --budget 10min --backend onednn --dtype bf16 --threads 1\n"
      "  moecast profile --out ./my-machine --format json\n"
      "  moecast profile --device cuda --dtype bf16\n"
      "  moecast profile --device mpi --ranks 4 --mpirun \"mpirun --host a,b,c,d\" --matrix bytes.json\n");
  command.callback([options, &line, command] {
    line.run = [options, &line, command] {
      if (options->device == "mpi") return profile_ranks(command, *options);
      refuse_mpi_options(command);
      restart_with_openblas_core(line.argv);
      return run_profile(*options);
    };
  });
}

}  // namespace moecast
