#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "hwprofiles/kernel_samples.h"
#include "hwprofiles/nccl_tests.h"
#include "hwprofiles/profile.h"
#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "sim/cost/kernel/kernel_data.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/output.h"

namespace moecast {
namespace {

struct ImportOptions {
  std::vector<std::string> files;
  std::string system;
  std::string framework;
  std::string version;
  std::string layout;
  std::string out;
  std::string most_rows = "5000000";
  std::string operation;  // of nccl-tests
  std::string nodes = "0";
  bool nccl_tests = false;
  std::string bandwidth, peak, cache, capacity, multiprocessors, link, nic;
  std::string data;
  std::string format = "table";
};

/// "h200_sxm" and "H200-SXM" name the same machine.
std::string machine_name(std::string text) {
  for (char& c : text) c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

void set(Profile& profile, const char* name, double value, const char* unit) {
  profile.quantities[name] = {
      value, unit, std::nullopt, std::nullopt, Origin::datasheet, "given on the command line of moecast import"};
}

/// A normaliser of the laws that nobody gave: the value of an H200, and it says so.
void assume(Profile& profile, const char* name, double value, const char* unit) {
  if (profile.find(name) != nullptr) return;
  profile.quantities[name] = {value, unit, std::nullopt, std::nullopt, Origin::assumed, "as H200: it was not given"};
}

/// The profile that rows go into: the folder's own, else a copy of a known machine's datasheet, else one from flags.
Profile target_profile(const ImportOptions& options, const DataFolders& folders, const std::string& folder) {
  Profile profile;
  std::error_code none;
  const std::string name = machine_name(options.system);
  if (std::filesystem::exists(folder + "/profile.json", none)) {
    profile = read_profile(folder);
  } else {
    bool known = false;
    for (const ProfileEntry& entry : find_profiles(folders)) {
      if (entry.name != name) continue;
      profile = read_profile(entry.folder);
      known = true;
      break;
    }
    profile.name = name;
    if (!known) {
      profile.device = "gpu";
      if (options.bandwidth.empty() || options.peak.empty()) {
        throw UsageError("--system", fmt::format("\"{}\" is not a machine whose datasheet ships", options.system),
                         "moecast list hw shows them; for another one give --bandwidth 4.8TB/s --peak-bf16 "
                         "989TFLOP/s --cache 50MB --multiprocessors 132");
      }
    }
  }
  if (!options.bandwidth.empty()) {
    set(profile, "memory_bandwidth", parse_bytes_per_second(options.bandwidth, "--bandwidth").value(), "B/s");
  }
  if (!options.peak.empty()) {
    set(profile, "peak_bf16", parse_flops_per_second(options.peak, "--peak-bf16").value(), "FLOP/s");
  }
  if (!options.cache.empty()) set(profile, "l2_cache", parse_bytes(options.cache, "--cache").value(), "B");
  if (!options.capacity.empty()) {
    set(profile, "memory_capacity", parse_bytes(options.capacity, "--memory").value(), "B");
  }
  if (!options.multiprocessors.empty()) {
    set(profile, "multiprocessors",
        static_cast<double>(parse_count(options.multiprocessors, "--multiprocessors", 1, 100000)), "1");
  }
  if (!options.link.empty()) {
    set(profile, "scaleup_bandwidth_per_direction", parse_bytes_per_second(options.link, "--link").value(), "B/s");
  }
  if (!options.nic.empty()) {
    set(profile, "scaleout_bandwidth_per_direction", parse_bytes_per_second(options.nic, "--nic").value(), "B/s");
  }
  assume(profile, "l2_cache", 50e6, "B");
  assume(profile, "multiprocessors", 132, "1");
  return profile;
}

/// Rows that physics refuses, or that are a known defect of a source, by reason.
void count_suspect_rows(const KernelTable& table, const DeviceLimits& device, TableReport& report) {
  RankLoadCache loads;
  for (const KernelSamples& samples : table.kernels) {
    std::string reason;
    const auto law = make_kernel_law(samples.key, device, &reason);
    if (law == nullptr) {
      report.left_out[reason] += static_cast<std::int64_t>(samples.size());
      continue;
    }
    const RowFilter filter = filter_rows(samples, *law, loads);
    for (const int row : filter.reason) {
      if (row >= 0) ++report.left_out["kept out of fits: " + filter.reasons[static_cast<std::size_t>(row)]];
    }
  }
}

Json report_json(const std::string& file, const KernelTable& table, const TableReport& report) {
  Json json{{"file", file},        {"kernels", table.kernels.size()}, {"rows", report.rows},
            {"kept", report.kept}, {"duplicates", report.duplicates}, {"disagreeing_duplicates", report.disagreeing}};
  json["left_out"] = Json::object();
  for (const auto& [reason, count] : report.left_out) json["left_out"][reason] = count;
  return json;
}

std::string report_text(const std::string& file, const KernelTable& table, const TableReport& report) {
  std::string text =
      fmt::format("{}: {} rows of {} kernels, {} kept\n", file, report.rows, table.kernels.size(), report.kept);
  if (report.duplicates > 0) {
    text += fmt::format("  {} duplicate keys (the last row counts), {} of them differ by more than 10 %\n",
                        report.duplicates, report.disagreeing);
  }
  for (const auto& [reason, count] : report.left_out) {
    const auto example = report.examples.find(reason);
    text += fmt::format("  {} rows: {}{}\n", count, reason,
                        example == report.examples.end() ? "" : " (first: " + printable(example->second) + ")");
  }
  return text;
}

int run_import(const ImportOptions& options) {
  const Format format = parse_format(options.format);
  const DataFolders folders = find_data_folders(options.data);
  const std::string name = machine_name(options.system);
  const std::string folder = options.out.empty() ? folders.own + "/" + name : options.out;
  const Profile profile = target_profile(options, folders, folder);
  const DeviceLimits device = device_limits(profile);
  std::vector<KernelSamples> samples = read_kernel_samples(folder);
  const std::int64_t most = parse_count(options.most_rows, "--most-rows", 1);
  std::string text;
  std::vector<Json> records;
  for (const std::string& file : options.files) {
    KernelTable table =
        options.nccl_tests ? read_nccl_tests(file, {options.operation, options.version,
                                                    static_cast<int>(parse_count(options.nodes, "--nodes", 0, 100000))})
                           : read_kernel_table(file, options.layout, options.framework, options.version, most);
    if (!table.kernels.empty() && table.kernels.front().key.framework.empty()) {
      throw UsageError("--framework", "is not in the file's name", "write --framework vllm --version 0.24.0");
    }
    if (table.report.rows == 0) throw InputError(file, "holds no row", "is it the table's header alone?");
    count_suspect_rows(table, device, table.report);
    text += report_text(file, table, table.report);
    records.push_back(report_json(file, table, table.report));
    merge_kernel_samples(samples, std::move(table.kernels));
  }
  write_profile(folder, profile);
  write_kernel_samples(folder, samples);
  text += fmt::format("\n{}\nnext: moecast calibrate {}\n", folder, folder);
  if (format == Format::table || format == Format::md) {
    write_stdout(text);
  } else {
    write_stdout(render_records(records, format, false));
  }
  return 0;
}

}  // namespace

namespace {

/// What every kind of measurement needs to be told.
void add_common_options(const Command& command, const std::shared_ptr<ImportOptions>& options) {
  add_text_option(command, "--system", options->system, "NAME",
                  "machine, e.g. h200-sxm (moecast list hw), or a new name");
  command.get_option("--system").required();
  add_text_option(command, "--out", options->out, "FOLDER", "profile folder (default: an own profile of that name)");
  add_text_option(command, "--bandwidth", options->bandwidth, "RATE",
                  "memory bandwidth of a new machine, e.g. 4.8TB/s");
  add_text_option(command, "--peak-bf16", options->peak, "RATE", "dense bf16 peak, e.g. 989TFLOP/s");
  add_text_option(command, "--cache", options->cache, "SIZE", "last-level cache, e.g. 50MB");
  add_text_option(command, "--memory", options->capacity, "SIZE", "memory capacity, e.g. 141GB");
  add_text_option(command, "--multiprocessors", options->multiprocessors, "COUNT", "e.g. 132");
  add_text_option(command, "--link", options->link, "RATE", "scale-up link of one direction, e.g. 450GB/s");
  add_text_option(command, "--nic", options->nic, "RATE", "scale-out link of one direction a device, e.g. 50GB/s");
  add_text_option(command, "--data", options->data, "FOLDER", "data folder (default: beside the program)");
  add_text_option(command, "--format", options->format, "FORMAT", "table (default), json, jsonl, csv");
}

void add_table_command(const Command& import, CommandLine& line) {
  const auto options = std::make_shared<ImportOptions>();
  const Command table = import.add_subcommand("table", "Tables of measured kernels and collectives (CSV, gzip or not)");
  table.add_option("files", options->files, "tables, e.g. moe.vllm-0.24.0.csv.gz").required();
  add_text_option(table, "--framework", options->framework, "NAME", "vllm, sglang, trtllm (default: the file's name)");
  add_text_option(table, "--version", options->version, "VERSION", "of the framework (default: the file's name)");
  add_text_option(table, "--operator", options->layout, "KIND",
                  "moe, gemm, context_attention, nccl, ... (default: the file's name and columns)");
  add_text_option(table, "--most-rows", options->most_rows, "COUNT", "refuse larger tables (default 5000000)");
  add_common_options(table, options);
  table.footer(
      "Rows that nothing can have measured (latency not above zero, top-k above experts) are left out and counted; "
      "rows\n"
      "faster than the datasheet allows are kept but never fitted. Rows with the same key replace earlier ones.\n\n"
      "Examples:\n"
      "  moecast import table moe.vllm-0.24.0.csv.gz gemm.vllm-0.24.0.csv.gz --system h200-sxm\n"
      "  moecast import table nccl.nccl-2.29.2.csv.gz --system h200-sxm\n"
      "  moecast import table mine.csv --operator moe --framework vllm --version 0.25.0 --system my-gpu \\\n"
      "    --bandwidth 3.9TB/s --peak-bf16 800TFLOP/s\n"
      "  moecast calibrate my-gpu\n");
  table.callback([options, &line] { line.run = [options] { return run_import(*options); }; });
}

void add_nccl_tests_command(const Command& import, CommandLine& line) {
  const auto options = std::make_shared<ImportOptions>();
  options->nccl_tests = true;
  const Command tests = import.add_subcommand("nccl-tests", "What all_reduce_perf and its sisters printed");
  tests.add_option("files", options->files, "saved outputs, one collective each").required();
  add_text_option(tests, "--operation", options->operation, "NAME",
                  "all_gather, reduce_scatter, alltoall, all_reduce (default: named in the output)");
  add_text_option(tests, "--version", options->version, "VERSION", "of NCCL (default: named in the output)");
  add_text_option(tests, "--nodes", options->nodes, "COUNT", "hosts (default: those in the list of ranks)");
  add_common_options(tests, options);
  tests.footer(
      "Out-of-place times are taken. Sizes are the whole buffer of a rank. Measure several rank counts: the law is\n"
      "fitted over them.\n\n"
      "Examples:\n"
      "  all_gather_perf -b 8 -e 512M -f 2 -g 8 | tee all_gather.8.txt\n"
      "  moecast import nccl-tests all_gather.8.txt all_gather.4.txt --system h100-sxm\n"
      "  moecast import nccl-tests ar.txt --operation all_reduce --version 2.29.2 --system my-gpu \\\n"
      "    --bandwidth 3.35TB/s --peak-bf16 989TFLOP/s --link 450GB/s --nic 50GB/s\n");
  tests.callback([options, &line] { line.run = [options] { return run_import(*options); }; });
}

}  // namespace

void add_import_command(const Command& app, CommandLine& line) {
  const Command command = app.add_subcommand("import", "Take measurements of other tools into a profile");
  command.require_subcommand(1);
  add_table_command(command, line);
  add_nccl_tests_command(command, line);
}

}  // namespace moecast
