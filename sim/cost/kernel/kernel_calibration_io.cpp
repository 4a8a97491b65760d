#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "models/core/compression.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"
#include "sim/cost/kernel/kernel_arrays_io.h"
#include "sim/cost/kernel/kernel_calibration.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostCurves = 1 << 20;
constexpr std::int64_t kMostKernels = 10000;

Json numbers(const Eigen::VectorXd& values) {
  Json json = Json::array();
  for (const double value : values) json.push_back(rounded_to_six(value));
  return json;
}

Json summary_json(const ErrorSummary& summary) {
  return {{"n", summary.n},
          {"median_ape", rounded_to_six(summary.median_ape)},
          {"mape", rounded_to_six(summary.mape)},
          {"p90_ape", rounded_to_six(summary.p90_ape)},
          {"within_10_ratio", rounded_to_six(summary.within_10_ratio)},
          {"coverage_90_ratio", rounded_to_six(summary.coverage_90_ratio)}};
}

Json header_of(const KernelModel& model) {
  Json json;
  json["framework"] = model.key.framework;
  json["version"] = model.key.version;
  json["layout"] = model.key.layout;
  json["kernel"] = model.key.kernel;
  json["dtype"] = model.key.dtype;
  json["shapes"] = model.shapes;
  json["rows"] = model.rows;
  json["noise"] = model.noise;
  json["largest_position"] = rounded_to_six(model.largest_position);
  json["largest_machine"] = model.largest_machine;
  json["coefficients"] = numbers(model.coefficients);
  json["scores_low"] = numbers(Eigen::Map<const Eigen::VectorXd>(model.scores.low.data(), kKernelBands));
  json["scores_high"] = numbers(Eigen::Map<const Eigen::VectorXd>(model.scores.high.data(), kKernelBands));
  if (model.scores.stretch != ScoreInterval::unstretched()) {
    json["stretch"] = Json::array();
    for (const auto& levels : model.scores.stretch) {
      json["stretch"].push_back(numbers(Eigen::Map<const Eigen::VectorXd>(levels.data(), std::ssize(levels))));
    }
  }
  json["axes"] = Json::array();
  for (const auto& axis : model.grid.axes) {
    json["axes"].push_back(numbers(Eigen::Map<const Eigen::VectorXd>(axis.data(), std::ssize(axis))));
  }
  json["curves"] = model.arrays().features.rows();
  json["kriged"] = model.arrays().weights.rows() > 0;
  json["landmarks"] = model.landmarks;
  json["landmark_step"] = array_step(model.arrays().landmark_factor);
  json["weight_step"] = array_step(model.arrays().weights);
  if (!model.short_curve_shares.empty()) json["short_curve_shares"] = model.short_curve_shares;
  if (model.inherited) json["inherited"] = true;
  if (model.left_out) json["left_out"] = summary_json(*model.left_out);
  return json;
}

std::vector<double> read_numbers(const JsonView& view, std::size_t most) {
  if (!view.is_array() || view.size() > most) throw InputError(view.where(), "is no list of numbers", kCalibrateAgain);
  std::vector<double> values;
  for (std::size_t i = 0; i < view.size(); ++i) values.push_back(view.at(i).as_number(-1e12, 1e12));
  return values;
}

std::array<double, kKernelBands> read_bands(const JsonView& view) {
  const std::vector<double> values = read_numbers(view, kKernelBands);
  if (values.size() != kKernelBands) throw InputError(view.where(), "has not one number a band", kCalibrateAgain);
  return {values[0], values[1], values[2]};
}

ScoreInterval::Stretch read_stretch(const JsonView& view) {
  ScoreInterval::Stretch stretch = ScoreInterval::unstretched();
  if (!view.is_array() || view.size() != stretch.size()) {
    throw InputError(view.where(), "has not one list a factor", kCalibrateAgain);
  }
  for (std::size_t factor = 0; factor < stretch.size(); ++factor) {
    const std::vector<double> ratios = read_numbers(view.at(factor), kIntervalLevels);
    if (ratios.size() != kIntervalLevels) {
      throw InputError(view.at(factor).where(), "has not one number a level", kCalibrateAgain);
    }
    if (std::ranges::min(ratios) <= 0) {
      throw InputError(view.at(factor).where(), "has a ratio that is not positive", kCalibrateAgain);
    }
    std::ranges::copy(ratios, stretch[factor].begin());
  }
  return stretch;
}

ErrorSummary read_summary(const JsonView& view) {
  ErrorSummary summary;
  summary.n = static_cast<int>(view.at("n").as_int(0, 1 << 30));
  summary.median_ape = view.at("median_ape").as_number();
  summary.mape = view.at("mape").as_number();
  summary.p90_ape = view.at("p90_ape").as_number();
  summary.within_10_ratio = view.at("within_10_ratio").as_number();
  summary.coverage_90_ratio = view.at("coverage_90_ratio").as_number();
  return summary;
}

void read_grid(const JsonView& view, const KernelLaw& law, CurveGrid& grid) {
  grid.plane = law.plane();
  const JsonView axes = view.at("axes");
  if (!axes.is_array() || static_cast<int>(axes.size()) != law.axes()) {
    throw InputError(axes.where(), "has not the axes of this kind of kernel", kCalibrateAgain);
  }
  for (std::size_t a = 0; a < axes.size(); ++a) {
    grid.axes.push_back(read_numbers(axes.at(a), CurveGrid::kMostNodes));
    const auto& nodes = grid.axes.back();
    if (nodes.empty() || !std::is_sorted(nodes.begin(), nodes.end(), std::less_equal<>())) {
      throw InputError(axes.at(a).where(), "is not an ascending axis", kCalibrateAgain);
    }
  }
  if (grid.nodes() > CurveGrid::kMostNodes) throw InputError(axes.where(), "has too many nodes", kCalibrateAgain);
}

KernelArraySizes read_sizes(const JsonView& view, const KernelModel& model) {
  KernelArraySizes sizes;
  sizes.curves = view.at("curves").as_int(0, kMostCurves);
  sizes.features = static_cast<std::int64_t>(model.law->features().size());
  sizes.nodes = model.grid.nodes();
  sizes.own_nodes = model.grid.own_nodes();
  sizes.landmarks = static_cast<std::int64_t>(view.at("landmarks").size());
  sizes.kriged = view.at("kriged").as_bool();
  sizes.weight_step = static_cast<float>(view.at("weight_step").as_number(0, 1e6));
  sizes.landmark_step = static_cast<float>(view.at("landmark_step").as_number(0, 1e6));
  sizes.bytes = view.at("bytes").as_int(0, std::int64_t{1} << 30);
  return sizes;
}

/// Takes the kernel's stream off the front of `streams`; it is unpacked when it is first asked for.
KernelModel read_model(const JsonView& view, const DeviceLimits& device, std::string_view& streams,
                       const std::string& where) {
  KernelModel model;
  model.key = {view.at("framework").as_string(), view.at("version").as_string(), view.at("layout").as_string(),
               view.at("kernel").as_string(), view.at("dtype").as_string()};
  if (find_kernel_layout(model.key.layout) == nullptr) {
    throw InputError(view.at("layout").where(), "is not a kind of kernel", kCalibrateAgain);
  }
  std::string reason;
  model.law = make_kernel_law(model.key, device, &reason);
  if (model.law == nullptr) throw InputError(view.where(), reason, kCalibrateAgain);
  model.shapes = static_cast<int>(view.at("shapes").as_int(0, 1 << 30));
  model.rows = static_cast<int>(view.at("rows").as_int(0, 1 << 30));
  model.noise = view.at("noise").as_number(0, 1e6);
  model.largest_position = view.at("largest_position").as_number();
  model.largest_machine = view.at("largest_machine").as_number(1, 1e9);
  const std::vector<double> coefficients = read_numbers(view.at("coefficients"), KernelLaw::kMostCoefficients);
  if (coefficients.size() != model.law->coefficients().size()) {
    throw InputError(view.at("coefficients").where(), "are those of another law", kCalibrateAgain);
  }
  model.coefficients = Eigen::Map<const Eigen::VectorXd>(coefficients.data(), std::ssize(coefficients));
  model.scores = {read_bands(view.at("scores_low")), read_bands(view.at("scores_high"))};
  if (view.has("stretch")) model.scores.stretch = read_stretch(view.at("stretch"));
  read_grid(view, *model.law, model.grid);
  if (view.has("left_out")) model.left_out = read_summary(view.at("left_out"));
  const KernelArraySizes sizes = read_sizes(view, model);
  if (view.has("short_curve_shares")) {
    model.short_curve_shares = read_numbers(view.at("short_curve_shares"), static_cast<std::size_t>(sizes.curves));
  }
  model.inherited = view.find_bool("inherited").value_or(false);
  const JsonView landmarks = view.at("landmarks");
  if (!landmarks.is_array() || landmarks.size() > 1024)
    throw InputError(landmarks.where(), "is no list", kCalibrateAgain);
  for (std::size_t i = 0; i < landmarks.size(); ++i) {
    model.landmarks.push_back(static_cast<int>(landmarks.at(i).as_int(0, sizes.curves - 1)));
  }
  const auto length = static_cast<std::size_t>(view.at("stream_bytes").as_int(0, std::int64_t{1} << 32));
  if (length > streams.size()) throw InputError(where, "is cut short", kCalibrateAgain);
  const auto stream = std::make_shared<const std::string>(streams.substr(0, length));
  streams.remove_prefix(length);
  model.lazy =
      std::make_shared<const LazyArrays>([sizes, stream, where] { return read_kernel_arrays(sizes, *stream, where); });
  return model;
}

}  // namespace

std::string kernel_calibration_text(const KernelCalibration& calibration) {
  Json header;
  header["schema_version"] = kKernelCalibrationVersion;
  header["profile"] = calibration.profile;
  header["memory_bandwidth"] = calibration.device.bandwidth;
  header["peak_bf16"] = calibration.device.peak_bf16;
  header["l2_cache"] = calibration.device.cache;
  header["multiprocessors"] = calibration.device.multiprocessors;
  header["link"] = calibration.device.link;
  header["nic"] = calibration.device.nic;
  header["switch_reduces"] = calibration.device.switch_reduces;
  header["node_devices"] = calibration.device.node_devices;
  header["tuned"] = Json::array();
  for (const TunedTiles& tuned : calibration.device.tuned) header["tuned"].push_back(tuned_tiles_json(tuned));
  header["left_out_rows"] = Json::object();
  for (const auto& [reason, rows] : calibration.left_out) header["left_out_rows"][reason] = rows;
  header["kernels"] = Json::array();
  std::string arrays;
  for (const KernelModel& model : calibration.kernels) {
    const std::string bytes = kernel_arrays_bytes(model.arrays());
    const std::string stream = compress_bytes(bytes);
    Json kernel = header_of(model);
    kernel["bytes"] = bytes.size();
    kernel["stream_bytes"] = stream.size();
    header["kernels"].push_back(std::move(kernel));
    arrays += stream;
  }
  return dump_json_line(header) + "\n" + arrays;
}

KernelCalibration parse_kernel_calibration(std::string_view text, const std::string& where) {
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos || !text.starts_with('{'))
    throw InputError(where, "is no calibration", kCalibrateAgain);
  const Json header = parse_json(text.substr(0, end), where);
  const JsonView view(header, where + ": ");
  if (view.at("schema_version").as_int() != kKernelCalibrationVersion) {
    throw InputError(view.at("schema_version").where(),
                     "is another version than " + std::to_string(kKernelCalibrationVersion), kCalibrateAgain);
  }
  KernelCalibration calibration;
  calibration.profile = view.at("profile").as_string();
  calibration.device = {view.at("memory_bandwidth").as_number(1, 1e18),
                        view.at("peak_bf16").as_number(1, 1e21),
                        view.at("l2_cache").as_number(1, 1e15),
                        view.at("multiprocessors").as_number(1, 1e6),
                        view.at("link").as_number(0, 1e18),
                        view.at("nic").as_number(0, 1e18),
                        view.at("switch_reduces").as_bool(),
                        static_cast<int>(view.at("node_devices").as_int(1, 4096))};
  const JsonView tuned = view.at("tuned");
  if (!tuned.is_array()) throw InputError(tuned.where(), "is no list of tuned tiles", kCalibrateAgain);
  for (std::size_t i = 0; i < tuned.size(); ++i) calibration.device.tuned.push_back(parse_tuned_tiles(tuned.at(i)));
  const JsonView left_out = view.at("left_out_rows");
  for (const std::string& reason : left_out.keys()) calibration.left_out[reason] = left_out.at(reason).as_int(0);
  const JsonView kernels = view.at("kernels");
  if (!kernels.is_array() || std::ssize(header["kernels"]) > kMostKernels) {
    throw InputError(kernels.where(), "is no list of kernels", kCalibrateAgain);
  }
  std::string_view streams = text.substr(end + 1);
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    calibration.kernels.push_back(read_model(kernels.at(i), calibration.device, streams, where));
  }
  if (!streams.empty()) throw InputError(where, "holds more than its header says", kCalibrateAgain);
  return calibration;
}

KernelCalibration read_kernel_calibration(const std::string& folder, const std::string& profile) {
  const std::string path = folder + "/" + std::string(kKernelCalibrationFile);
  KernelCalibration calibration = parse_kernel_calibration(read_text_file(path), path);
  if (calibration.profile != profile) {
    throw InputError(path, "belongs to profile \"" + calibration.profile + "\", not to \"" + profile + "\"",
                     "make it again: moecast calibrate " + folder);
  }
  calibration.backends = read_backend_rules(folder);
  return calibration;
}

}  // namespace moecast
