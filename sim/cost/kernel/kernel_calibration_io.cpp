#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "models/core/compression.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"
#include "sim/cost/kernel/kernel_calibration.h"

namespace moecast {
namespace {

static_assert(std::endian::native == std::endian::little, "kernels.bin is little endian");

constexpr const char* kAgain = "make it again: moecast calibrate PROFILE";
constexpr double kSteps = 32767;
constexpr double kOwnSteps = 127;
constexpr std::int64_t kMostCurves = 1 << 20;
constexpr std::int64_t kMostKernels = 10000;

double rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return 0;
  const double scale = std::pow(10.0, 5 - std::floor(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

/// Matrices are kept in steps of 1/32767 of their largest entry: 16 bits are below every noise.
double step_of(const Eigen::MatrixXf& matrix) {
  return matrix.size() == 0 ? 0 : rounded(static_cast<double>(matrix.cwiseAbs().maxCoeff()) * 1.00001 / kSteps);
}

void append_steps(std::string& out, const Eigen::MatrixXf& matrix, double step) {
  for (Eigen::Index i = 0; i < matrix.rows(); ++i) {
    for (Eigen::Index j = 0; j < matrix.cols(); ++j) {
      const double value = step == 0 ? 0 : std::round(static_cast<double>(matrix(i, j)) / step);
      const auto stored = static_cast<std::int16_t>(std::clamp(value, -kSteps, kSteps));
      char bytes[sizeof stored];
      std::memcpy(bytes, &stored, sizeof stored);
      out.append(bytes, sizeof stored);
    }
  }
}

template <class Stored>
void append_value(std::string& out, Stored stored) {
  char bytes[sizeof stored];
  std::memcpy(bytes, &stored, sizeof stored);
  out.append(bytes, sizeof stored);
}

/// Features take few values: a list of them, and one byte an entry. Columns with more than 255 keep their values.
void append_features(std::string& out, const Eigen::MatrixXf& features) {
  for (Eigen::Index f = 0; f < features.cols(); ++f) {
    const std::set<float> values(features.col(f).begin(), features.col(f).end());
    const bool coded = values.size() < 256;
    append_value(out, static_cast<std::uint8_t>(coded ? values.size() : 0));
    if (!coded) {
      for (const float value : features.col(f)) append_value(out, value);
      continue;
    }
    for (const float value : values) append_value(out, value);
    for (const float value : features.col(f)) {
      append_value(out, static_cast<std::uint8_t>(std::distance(values.begin(), values.find(value))));
    }
  }
}

/// Rows in 8 bits of their own largest entry.
void append_own(std::string& out, const Eigen::MatrixXf& own) {
  for (Eigen::Index i = 0; i < own.rows(); ++i) {
    const auto step = static_cast<float>(rounded(static_cast<double>(own.row(i).cwiseAbs().maxCoeff()) / kOwnSteps));
    append_value(out, step);
    for (const float value : own.row(i)) {
      const double steps = step == 0 ? 0 : std::round(static_cast<double>(value / step));
      append_value(out, static_cast<std::int8_t>(std::clamp(steps, -kOwnSteps, kOwnSteps)));
    }
  }
}

/// Lower triangle in steps.
void append_triangle(std::string& out, const Eigen::MatrixXf& matrix, double step) {
  for (Eigen::Index i = 0; i < matrix.rows(); ++i) append_steps(out, matrix.row(i).head(i + 1), step);
}

class Reader {
 public:
  Reader(std::string_view data, const std::string& where) : data_(data), where_(where) {}

  template <class Stored>
  Eigen::MatrixXf matrix(std::int64_t rows, std::int64_t columns, float step) {
    const std::uint64_t bytes = static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(columns) * sizeof(Stored);
    if (bytes > data_.size()) throw InputError(where_, "is cut short", kAgain);
    Eigen::MatrixXf out(rows, columns);
    const char* from = data_.data();
    for (Eigen::Index i = 0; i < rows; ++i) {
      for (Eigen::Index j = 0; j < columns; ++j, from += sizeof(Stored)) {
        Stored stored;
        std::memcpy(&stored, from, sizeof stored);
        out(i, j) = static_cast<float>(stored) * step;
      }
    }
    if (!out.allFinite()) throw InputError(where_, "holds values that are not finite", kAgain);
    data_.remove_prefix(bytes);
    return out;
  }
  Eigen::MatrixXf features(std::int64_t rows, std::int64_t columns) {
    Eigen::MatrixXf out(rows, columns);
    for (Eigen::Index f = 0; f < columns; ++f) {
      const auto count = static_cast<std::int64_t>(matrix<std::uint8_t>(1, 1, 1)(0, 0));
      if (count == 0) {
        out.col(f) = matrix<float>(rows, 1, 1);
        continue;
      }
      const Eigen::MatrixXf values = matrix<float>(count, 1, 1);
      const Eigen::MatrixXf codes = matrix<std::uint8_t>(rows, 1, 1);
      for (Eigen::Index i = 0; i < rows; ++i) {
        const auto code = static_cast<Eigen::Index>(codes(i, 0));
        if (code >= count) throw InputError(where_, "holds a feature that is not in its list", kAgain);
        out(i, f) = values(code, 0);
      }
    }
    return out;
  }
  Eigen::MatrixXf own(std::int64_t rows, std::int64_t columns) {
    Eigen::MatrixXf out(rows, columns);
    for (Eigen::Index i = 0; i < rows; ++i) {
      const float step = matrix<float>(1, 1, 1)(0, 0);
      out.row(i) = matrix<std::int8_t>(1, columns, step);
    }
    return out;
  }
  Eigen::MatrixXf triangle(std::int64_t size, float step) {
    Eigen::MatrixXf out = Eigen::MatrixXf::Zero(size, size);
    for (Eigen::Index i = 0; i < size; ++i) out.row(i).head(i + 1) = matrix<std::int16_t>(1, i + 1, step);
    return out;
  }
  [[nodiscard]] bool at_end() const { return data_.empty(); }

 private:
  std::string_view data_;
  const std::string& where_;
};

Json numbers(const Eigen::VectorXd& values) {
  Json json = Json::array();
  for (const double value : values) json.push_back(rounded(value));
  return json;
}

Json summary_json(const ErrorSummary& summary) {
  return {{"n", summary.n},
          {"median_ape", rounded(summary.median_ape)},
          {"mape", rounded(summary.mape)},
          {"p90_ape", rounded(summary.p90_ape)},
          {"within_10_ratio", rounded(summary.within_10_ratio)},
          {"coverage_90_ratio", rounded(summary.coverage_90_ratio)}};
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
  json["largest_position"] = rounded(model.largest_position);
  json["largest_machine"] = model.largest_machine;
  json["coefficients"] = numbers(model.coefficients);
  json["scores_low"] = numbers(Eigen::Map<const Eigen::VectorXd>(model.scores.low.data(), kKernelBands));
  json["scores_high"] = numbers(Eigen::Map<const Eigen::VectorXd>(model.scores.high.data(), kKernelBands));
  json["axes"] = Json::array();
  for (const auto& axis : model.grid.axes) {
    json["axes"].push_back(numbers(Eigen::Map<const Eigen::VectorXd>(axis.data(), std::ssize(axis))));
  }
  json["curves"] = model.arrays().features.rows();
  json["kriged"] = model.arrays().weights.rows() > 0;
  json["landmarks"] = model.landmarks;
  json["landmark_step"] = step_of(model.arrays().landmark_factor);
  json["weight_step"] = step_of(model.arrays().weights);
  if (!model.short_curve_shares.empty()) json["short_curve_shares"] = model.short_curve_shares;
  if (model.inherited) json["inherited"] = true;
  if (model.left_out) json["left_out"] = summary_json(*model.left_out);
  return json;
}

std::vector<double> read_numbers(const JsonView& view, std::size_t most) {
  if (!view.is_array() || view.size() > most) throw InputError(view.where(), "is no list of numbers", kAgain);
  std::vector<double> values;
  for (std::size_t i = 0; i < view.size(); ++i) values.push_back(view.at(i).as_number(-1e12, 1e12));
  return values;
}

std::array<double, kKernelBands> read_bands(const JsonView& view) {
  const std::vector<double> values = read_numbers(view, kKernelBands);
  if (values.size() != kKernelBands) throw InputError(view.where(), "has not one number a band", kAgain);
  return {values[0], values[1], values[2]};
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
    throw InputError(axes.where(), "has not the axes of this kind of kernel", kAgain);
  }
  for (std::size_t a = 0; a < axes.size(); ++a) {
    grid.axes.push_back(read_numbers(axes.at(a), CurveGrid::kMostNodes));
    const auto& nodes = grid.axes.back();
    if (nodes.empty() || !std::is_sorted(nodes.begin(), nodes.end(), std::less_equal<>())) {
      throw InputError(axes.at(a).where(), "is not an ascending axis", kAgain);
    }
  }
  if (grid.nodes() > CurveGrid::kMostNodes) throw InputError(axes.where(), "has too many nodes", kAgain);
}

/// Everything that says how long a kernel's arrays are.
struct ArraySizes {
  std::int64_t curves = 0, features = 0, nodes = 0, own_nodes = 0, landmarks = 0, bytes = 0;
  bool kriged = false;
  float weight_step = 0, landmark_step = 0;
};

ArraySizes read_sizes(const JsonView& view, const KernelModel& model) {
  ArraySizes sizes;
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

KernelArrays read_arrays(const ArraySizes& sizes, std::string_view stream, const std::string& where) {
  // zlib packs at most 1032 to 1: a larger claim would only reserve memory.
  if (sizes.bytes > 1100 * (std::ssize(stream) + 1)) throw InputError(where, "is damaged", kAgain);
  const std::string bytes = decompress_bytes(stream, static_cast<std::size_t>(sizes.bytes), where);
  Reader reader(bytes, where);
  KernelArrays arrays;
  arrays.features = reader.features(sizes.curves, sizes.features);
  arrays.own = reader.own(sizes.curves, sizes.own_nodes);
  if (sizes.kriged) arrays.weights = reader.matrix<std::int16_t>(sizes.curves, sizes.nodes, sizes.weight_step);
  arrays.landmark_factor = reader.triangle(sizes.landmarks, sizes.landmark_step);
  if (!reader.at_end()) throw InputError(where, "holds more than its header says", kAgain);
  return arrays;
}

std::string arrays_bytes(const KernelArrays& arrays) {
  std::string bytes;
  append_features(bytes, arrays.features);
  append_own(bytes, arrays.own);
  if (arrays.weights.rows() > 0) append_steps(bytes, arrays.weights, step_of(arrays.weights));
  append_triangle(bytes, arrays.landmark_factor, step_of(arrays.landmark_factor));
  return bytes;
}

/// Takes the kernel's stream off the front of `streams`; it is unpacked when it is first asked for.
KernelModel read_model(const JsonView& view, const DeviceLimits& device, std::string_view& streams,
                       const std::string& where) {
  KernelModel model;
  model.key = {view.at("framework").as_string(), view.at("version").as_string(), view.at("layout").as_string(),
               view.at("kernel").as_string(), view.at("dtype").as_string()};
  if (find_kernel_layout(model.key.layout) == nullptr) {
    throw InputError(view.at("layout").where(), "is not a kind of kernel", kAgain);
  }
  std::string reason;
  model.law = make_kernel_law(model.key, device, &reason);
  if (model.law == nullptr) throw InputError(view.where(), reason, kAgain);
  model.shapes = static_cast<int>(view.at("shapes").as_int(0, 1 << 30));
  model.rows = static_cast<int>(view.at("rows").as_int(0, 1 << 30));
  model.noise = view.at("noise").as_number(0, 1e6);
  model.largest_position = view.at("largest_position").as_number();
  model.largest_machine = view.at("largest_machine").as_number(1, 1e9);
  const std::vector<double> coefficients = read_numbers(view.at("coefficients"), KernelLaw::kMostCoefficients);
  if (coefficients.size() != model.law->coefficients().size()) {
    throw InputError(view.at("coefficients").where(), "are those of another law", kAgain);
  }
  model.coefficients = Eigen::Map<const Eigen::VectorXd>(coefficients.data(), std::ssize(coefficients));
  model.scores = {read_bands(view.at("scores_low")), read_bands(view.at("scores_high"))};
  read_grid(view, *model.law, model.grid);
  if (view.has("left_out")) model.left_out = read_summary(view.at("left_out"));
  const ArraySizes sizes = read_sizes(view, model);
  if (view.has("short_curve_shares")) {
    model.short_curve_shares = read_numbers(view.at("short_curve_shares"), static_cast<std::size_t>(sizes.curves));
  }
  model.inherited = view.find_bool("inherited").value_or(false);
  const JsonView landmarks = view.at("landmarks");
  if (!landmarks.is_array() || landmarks.size() > 1024) throw InputError(landmarks.where(), "is no list", kAgain);
  for (std::size_t i = 0; i < landmarks.size(); ++i) {
    model.landmarks.push_back(static_cast<int>(landmarks.at(i).as_int(0, sizes.curves - 1)));
  }
  const auto length = static_cast<std::size_t>(view.at("stream_bytes").as_int(0, std::int64_t{1} << 32));
  if (length > streams.size()) throw InputError(where, "is cut short", kAgain);
  const auto stream = std::make_shared<const std::string>(streams.substr(0, length));
  streams.remove_prefix(length);
  model.lazy =
      std::make_shared<const LazyArrays>([sizes, stream, where] { return read_arrays(sizes, *stream, where); });
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
  header["left_out_rows"] = Json::object();
  for (const auto& [reason, rows] : calibration.left_out) header["left_out_rows"][reason] = rows;
  header["kernels"] = Json::array();
  std::string arrays;
  for (const KernelModel& model : calibration.kernels) {
    const std::string bytes = arrays_bytes(model.arrays());
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
  if (end == std::string_view::npos || !text.starts_with('{')) throw InputError(where, "is no calibration", kAgain);
  const Json header = parse_json(text.substr(0, end), where);
  const JsonView view(header, where + ": ");
  if (view.at("schema_version").as_int() != kKernelCalibrationVersion) {
    throw InputError(view.at("schema_version").where(),
                     "is another version than " + std::to_string(kKernelCalibrationVersion), kAgain);
  }
  KernelCalibration calibration;
  calibration.profile = view.at("profile").as_string();
  calibration.device = {view.at("memory_bandwidth").as_number(1, 1e18),
                        view.at("peak_bf16").as_number(1, 1e21),
                        view.at("l2_cache").as_number(1, 1e15),
                        view.at("multiprocessors").as_number(1, 1e6),
                        view.at("link").as_number(0, 1e18),
                        view.at("nic").as_number(0, 1e18),
                        view.at("switch_reduces").as_bool()};
  const JsonView left_out = view.at("left_out_rows");
  for (const std::string& reason : left_out.keys()) calibration.left_out[reason] = left_out.at(reason).as_int(0);
  const JsonView kernels = view.at("kernels");
  if (!kernels.is_array() || std::ssize(header["kernels"]) > kMostKernels) {
    throw InputError(kernels.where(), "is no list of kernels", kAgain);
  }
  std::string_view streams = text.substr(end + 1);
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    calibration.kernels.push_back(read_model(kernels.at(i), calibration.device, streams, where));
  }
  if (!streams.empty()) throw InputError(where, "holds more than its header says", kAgain);
  return calibration;
}

KernelCalibration read_kernel_calibration(const std::string& folder, const std::string& profile) {
  const std::string path = folder + "/" + std::string(kKernelCalibrationFile);
  KernelCalibration calibration = parse_kernel_calibration(read_text_file(path), path);
  if (calibration.profile != profile) {
    throw InputError(path, "belongs to profile \"" + calibration.profile + "\", not to \"" + profile + "\"",
                     "make it again: moecast calibrate " + folder);
  }
  return calibration;
}

}  // namespace moecast
