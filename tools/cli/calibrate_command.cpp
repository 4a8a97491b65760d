#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "hwprofiles/profile.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/quantity_text.h"
#include "sim/cost/calibration.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/output.h"
#include "tools/loop/closure.h"

namespace moecast {
namespace {

struct CalibrateOptions {
  std::string profile = "this-machine";
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

int run_calibrate(const CalibrateOptions& options) {
  const Format format = parse_format(options.format);
  const std::string folder = choose_hardware(options.profile, find_data_folders(options.data)).folder;
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

void add_calibrate_command(CLI::App& app, CommandLine& line) {
  const auto options = std::make_shared<CalibrateOptions>();
  CLI::App& command = *app.add_subcommand("calibrate", "Make calibration.json again from a profile's samples");
  command.add_option("profile", options->profile, "name of `list hw` or a folder (default: this-machine)");
  add_text_option(command, "--data", options->data, "FOLDER", "data folder (default: beside the program)");
  add_text_option(command, "--format", options->format, "FORMAT", "table (default), md, csv, json, jsonl");
  command.footer("Examples:\n  moecast calibrate\n  moecast calibrate ./my-machine --format json\n");
  command.callback([options, &line] { line.run = [options] { return run_calibrate(*options); }; });
}

}  // namespace moecast
