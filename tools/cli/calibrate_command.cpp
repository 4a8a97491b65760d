#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "hwprofiles/profile.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/quantity_text.h"
#include "sim/cost/calibration.h"
#include "sim/cost/kernel/kernel_calibration.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/output.h"
#include "tools/cli/progress_bar.h"
#include "tools/loop/added_rows.h"
#include "tools/loop/closure.h"

namespace moecast {
namespace {

constexpr std::string_view kNoSister = "none";

struct CalibrateOptions {
  std::string profile = "this-machine";
  std::vector<std::string> add;
  std::string sister;  ///< empty: the one that the profile names
  std::string backend;
  std::string layout;
  std::string data;
  std::string format = "table";
};

/// Of a profile that keeps no executed layers: taken over from the calibration before.
Closures kept_closures(const std::string& file) {
  try {
    return parse_calibration_text(read_text_file(file), file).closures;
  } catch (const InputError& error) {
    warn(fmt::format("{}: without what lies between the kernels of a layer (moecast profile measures it)",
                     error.what()));
    return {};
  }
}

std::string percent_or_dash(const KernelModel& model, double ErrorSummary::* field) {
  return model.left_out ? format_percent((*model.left_out).*field) : std::string("–");
}

/// The calibration before rows are added; nullopt where there is none that can be read.
std::optional<KernelCalibration> earlier_calibration(const std::string& folder, const Profile& profile) {
  try {
    return read_kernel_calibration(folder, profile.name);
  } catch (const InputError&) {
    return std::nullopt;
  }
}

std::string error_text(const std::optional<ErrorSummary>& errors) {
  if (!errors) return "unknown";
  return fmt::format("{} off in the median, {:.0f} of {} inside their intervals", format_percent(errors->median_ape),
                     errors->coverage_90_ratio * errors->n, errors->n);
}

/// The sister that the profile names: beside it, else a folder or a known name. Empty: it is not here.
std::string remembered_folder(const CalibrateOptions& options, const std::string& folder, const std::string& name) {
  const std::string beside = folder + "/../" + name;
  std::error_code failed;
  if (std::filesystem::exists(beside + "/profile.json", failed)) return beside;
  try {
    return profile_folder(find_data_folders(options.data), name);
  } catch (const Error&) {
    return "";
  } catch (const std::filesystem::filesystem_error&) {  // no name that a file may have
    return "";
  }
}

struct Sister {
  std::string remembered;                        ///< what the profile will call it; empty: it has none
  std::optional<KernelCalibration> calibration;  ///< kernels that were measured there
};

/// What profile.json will say, so that the same folder is found again.
std::string name_of_sister(const CalibrateOptions& options, const std::string& folder, const std::string& sister) {
  const std::string name = read_profile(sister).name;
  const std::string found = remembered_folder(options, folder, name);
  std::error_code failed;
  const bool same = !found.empty() && std::filesystem::equivalent(found, sister, failed);
  return same ? name : std::filesystem::absolute(sister).lexically_normal().string();
}

/// The sister machine of --sister, else of the profile.
Sister find_sister(const CalibrateOptions& options, const std::string& folder, const Profile& profile) {
  const bool typed = !options.sister.empty();
  if (options.sister == kNoSister || (!typed && profile.sister.empty())) return {};
  const std::string where = typed ? "--sister" : folder + "/profile.json: /sister";
  const std::string how = "write --sister NAME or FOLDER, or --sister none to do without its kernels";
  if (profile.device == "cpu") throw InputError(where, "is of GPUs, this is the profile of a CPU", "leave it out");
  const std::string& name = typed ? options.sister : profile.sister;
  const std::string found = remembered_folder(options, folder, name);
  if (found.empty()) throw InputError(where, "names a sister that is not here: " + printable(name), how);
  const Profile sister = read_profile(found);
  if (sister.name == profile.name) throw InputError(where, "is the profile itself", "name another machine");
  if (sister.device != profile.device) throw InputError(where, sister.name + " is no GPU", how);
  if (sister.sister == profile.name) {
    throw InputError(where, sister.name + " learns from this profile: its kernels are partly those of here", how);
  }
  Sister known{typed ? name_of_sister(options, folder, found) : profile.sister,
               read_kernel_calibration(found, sister.name)};
  // What it borrowed itself is not known from there.
  std::erase_if(known.calibration->kernels, [](const KernelModel& model) { return model.inherited; });
  if (!typed) note(fmt::format("beside {}, which the profile names as its sister", sister.name));
  return known;
}

/// Kernels of tables: kernels.bin.
/// @param added  what --add brought, in `samples` too.
int calibrate_kernel_samples(const CalibrateOptions& options, const std::string& folder, Profile profile,
                             const Sister& sister, const std::vector<KernelSamples>& samples,
                             const std::vector<KernelSamples>& added) {
  const Format format = parse_format(options.format);
  const std::optional<KernelCalibration> earlier = added.empty() ? std::nullopt : earlier_calibration(folder, profile);
  ProgressBar bar;
  const auto start = std::chrono::steady_clock::now();
  const KernelCalibration calibration = calibrate_kernels(
      profile, samples,
      [&](std::size_t done, std::size_t all) {
        const double passed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        bar.update("fitting kernels", static_cast<double>(done) / static_cast<double>(all),
                   Seconds(passed * static_cast<double>(all - done) / static_cast<double>(done)));
      },
      sister.calibration ? &*sister.calibration : nullptr, read_backend_rules(folder));
  bar.clear();
  const std::string file = folder + "/" + std::string(kKernelCalibrationFile);
  write_file_atomically(file, kernel_calibration_text(calibration));
  if (profile.sister != sister.remembered) {
    profile.sister = sister.remembered;
    write_profile(folder, profile);
  }
  const std::vector<AddedRows> compared = compare_added_rows(added, earlier ? &*earlier : nullptr, calibration);
  Table table{{"kernel", "shapes", "rows", "median", "p90", "within 10 %", "in 90 %"}, {}};
  std::vector<Json> records;
  for (const KernelModel& model : calibration.kernels) {
    table.rows.push_back({model.key.text(), std::to_string(model.shapes), std::to_string(model.rows),
                          percent_or_dash(model, &ErrorSummary::median_ape),
                          percent_or_dash(model, &ErrorSummary::p90_ape),
                          percent_or_dash(model, &ErrorSummary::within_10_ratio),
                          percent_or_dash(model, &ErrorSummary::coverage_90_ratio)});
    const auto known = [&](double ErrorSummary::* field) {
      return model.left_out ? Json((*model.left_out).*field) : Json();
    };
    records.push_back({{"framework", model.key.framework},
                       {"version", model.key.version},
                       {"operator", model.key.layout},
                       {"kernel", model.key.kernel},
                       {"dtype", model.key.dtype},
                       {"shapes", model.shapes},
                       {"rows", model.rows},
                       {"left_out_median_ape", known(&ErrorSummary::median_ape)},
                       {"left_out_p90_ape", known(&ErrorSummary::p90_ape)},
                       {"coverage_90_ratio", known(&ErrorSummary::coverage_90_ratio)}});
    for (const AddedRows& rows : compared) {
      if (!(rows.key == model.key) || !rows.after) continue;
      records.back()["added_rows"] = rows.after->n;
      records.back()["added_median_ape_before"] = rows.before ? Json(rows.before->median_ape) : Json();
      records.back()["added_median_ape_after"] = rows.after->median_ape;
    }
  }
  if (format == Format::table || format == Format::md) {
    std::string text = fmt::format("{}\nerror of rows whose whole shape was left out:\n", file);
    text += render_table(table, format);
    for (const AddedRows& rows : compared) {
      text += fmt::format("added to {}: before {}; now {}\n", rows.key.text(), error_text(rows.before),
                          error_text(rows.after));
    }
    for (const std::string& choice : calibration.choices) text += "chosen: " + choice + "\n";
    for (const auto& [reason, rows] : calibration.left_out) {
      text += fmt::format("not fitted: {} rows: {}\n", rows, reason);
    }
    write_stdout(text);
  } else {
    write_stdout(render_records(records, format, false));
  }
  return 0;
}

/// Rows of further tables become part of the profile's samples.
/// @return these rows.
std::vector<KernelSamples> add_tables(const CalibrateOptions& options, const std::string& folder,
                                      std::vector<KernelSamples>& kernels) {
  std::vector<KernelSamples> added;
  if (options.add.empty()) return added;
  const auto [framework, version] = split_backend(options.backend);
  for (const std::string& file : options.add) {
    KernelTable table = read_kernel_table(file, options.layout, framework, version);
    if (!table.kernels.empty() && table.kernels.front().key.framework.empty()) {
      throw UsageError("--backend", "is not in the name of " + file, "write --backend vllm-0.24.0");
    }
    for (const auto& [reason, count] : table.report.left_out) {
      const auto example = table.report.examples.find(reason);
      warn(fmt::format("{}: {} rows not added: {}{}", file, count, reason,
                       example == table.report.examples.end() ? "" : " (first: " + printable(example->second) + ")"));
    }
    if (table.report.kept == 0) throw InputError(file, "adds no row", "mend the rows above");
    note(fmt::format("{}: {} rows added", file, table.report.kept));
    merge_kernel_samples(added, table.kernels);
    merge_kernel_samples(kernels, std::move(table.kernels));
  }
  write_kernel_samples(folder, kernels);
  return added;
}

int run_calibrate(const CalibrateOptions& options) {
  const Format format = parse_format(options.format);
  const DataFolders folders = find_data_folders(options.data);
  if (options.profile != "this-machine") {
    const std::string chosen = profile_folder(folders, options.profile);
    if (!options.add.empty() && chosen == folders.shipped + "/" + options.profile) {
      throw UsageError("--add", "would change a profile that ships with moecast",
                       fmt::format("copy it: mkdir -p {0} && cp -r {1} {0}/; then add: your own is used instead",
                                   folders.own, chosen));
    }
    std::vector<KernelSamples> kernels = read_kernel_samples(chosen);
    Profile profile = read_profile(chosen);
    const Sister sister = find_sister(options, chosen, profile);
    const std::vector<KernelSamples> added = add_tables(options, chosen, kernels);
    if (!kernels.empty() || sister.calibration || !profile.sister.empty())
      return calibrate_kernel_samples(options, chosen, std::move(profile), sister, kernels, added);
  } else if (!options.sister.empty()) {
    throw UsageError("--sister", "is of GPUs", "name the profile: moecast calibrate my-gpu --sister h100-sxm");
  }
  const std::string folder = choose_hardware(options.profile, folders).folder;
  const Profile profile = read_profile(folder);
  const std::vector<Measurement> samples = read_samples(folder);
  if (samples.empty()) throw InputError(folder + "/samples", "holds no samples", "moecast profile measures them");
  const std::vector<ExecutedLayer> layers = read_layers(folder);
  Calibration calibration = calibrate_with_layers(profile, samples, layers);
  const std::string file = folder + "/calibration.json";
  if (layers.empty()) calibration.closures = kept_closures(file);
  write_file_atomically(file, calibration_text(calibration));

  std::vector<Json> records;
  Table table{{"backend", "dtype", "threads", "points", "m <= 16", "17-256", "> 256"}, {}};
  for (const GemmCalibration& g : calibration.gemms) {
    table.rows.push_back({g.backend, std::string(to_string(g.dtype)), std::to_string(g.threads),
                          std::to_string(g.points), format_percent(g.median_error[0]),
                          format_percent(g.median_error[1]), format_percent(g.median_error[2])});
    records.push_back({{"backend", g.backend},
                       {"dtype", to_string(g.dtype)},
                       {"threads", g.threads},
                       {"points", g.points},
                       {"left_out_median_ape", g.median_error},
                       {"half_width_ln", g.half_width}});
  }
  if (format == Format::table || format == Format::md) {
    write_stdout(fmt::format("{}\nmedian error of left-out points by rows m:\n", file) + render_table(table, format));
  } else {
    write_stdout(render_records(records, format, false));
  }
  return 0;
}

}  // namespace

void add_calibrate_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<CalibrateOptions>();
  const Command command = app.add_subcommand("calibrate", "Make a profile's calibration again from its samples");
  command.add_option("profile", options->profile, "name of `list hw` or a folder (default: this-machine)");
  command.add_option("--add", options->add, "tables whose rows become part of the profile first").type_name("FILE");
  add_text_option(command, "--backend", options->backend, "FRAMEWORK-VERSION",
                  "with --add: whose kernels these are (default: the file's name)");
  add_text_option(command, "--operator", options->layout, "KIND", "with --add: moe, gemm, ... (default: the columns)");
  add_text_option(
      command, "--sister", options->sister, "NAME",
      "profile of the same generation: kernels with few or no rows learn from it where that helps; the profile "
      "remembers it (none: forget it)");
  add_text_option(command, "--data", options->data, "FOLDER", "data folder (default: beside the program)");
  add_text_option(command, "--format", options->format, "FORMAT", "table (default), md, csv, json, jsonl");
  command.footer(
      "Examples:\n"
      "  moecast calibrate\n"
      "  moecast calibrate ./my-machine --format json\n"
      "  moecast calibrate my-h200 --add mine.csv --backend vllm-0.24.0     1 to 5 token counts refine a shape\n"
      "  moecast calibrate my-gpu --sister h100-sxm                         20 to 100 rows of a machine never "
      "profiled\n");
  command.callback([options, &line] { line.run = [options] { return run_calibrate(*options); }; });
}

}  // namespace moecast
