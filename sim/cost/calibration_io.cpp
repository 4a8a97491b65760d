#include <cmath>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"
#include "sim/cost/calibration.h"

namespace moecast {
namespace {

/// Digits that are kept of a stored coefficient: far below any measured difference, and short.
constexpr int kDigits = 7;

double rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return value;
  const double scale = std::pow(10.0, kDigits - 1 - std::floor(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

Json array_of(const Eigen::VectorXd& values) {
  Json json = Json::array();
  for (const double value : values) json.push_back(rounded(value));
  return json;
}

template <std::size_t N>
Json array_of(const std::array<double, N>& values) {
  Json json = Json::array();
  for (const double value : values) json.push_back(rounded(value));
  return json;
}

Eigen::VectorXd read_vector(const JsonView& view, std::size_t expected) {
  if (!view.is_array() || view.size() != expected) {
    throw InputError(view.where(), "has " + std::to_string(view.is_array() ? view.size() : 0) + " numbers, expected " +
                                       std::to_string(expected));
  }
  Eigen::VectorXd values(static_cast<Eigen::Index>(expected));
  for (std::size_t i = 0; i < expected; ++i) {
    const Json& value = view.raw()[i];
    if (!value.is_number()) throw InputError(view.where(), "holds something that is not a number");
    values(static_cast<Eigen::Index>(i)) = value.get<double>();
  }
  return values;
}

std::array<double, kBands> read_band_widths(const JsonView& view) {
  const Eigen::VectorXd values = read_vector(view, kBands);
  return {values(0), values(1), values(2)};
}

DType read_dtype(const JsonView& view) {
  const auto dtype = parse_dtype(view.as_string());
  if (!dtype) throw InputError(view.where(), "is not a known dtype");
  return *dtype;
}

template <class Rule>
Rule read_rule(const JsonView& view, std::initializer_list<Rule> rules) {
  const std::string text = view.as_string();
  for (const Rule rule : rules) {
    if (to_string(rule) == text) return rule;
  }
  throw InputError(view.where(), "\"" + text + "\" is not a rule");
}

GemmTraits read_traits(const JsonView& view, const std::string& backend, DType dtype, int threads) {
  return gemm_traits(
      backend, dtype, threads,
      read_rule(view.at("row_bucket"), {RowBucket::exact, RowBucket::multiple4, RowBucket::tile16}),
      read_rule(view.at("packing"), {WeightPacking::ahead, WeightPacking::none, WeightPacking::every_call,
                                     WeightPacking::unless_small, WeightPacking::unless_one_row}));
}

Json gemm_json(const GemmCalibration& gemm) {
  Json json;
  json["backend"] = gemm.backend;
  json["dtype"] = to_string(gemm.dtype);
  json["threads"] = gemm.threads;
  json["points"] = gemm.points;
  json["row_bucket"] = to_string(gemm.law.traits().row_bucket);
  json["packing"] = to_string(gemm.law.traits().packing);
  Json law;
  const Eigen::VectorXd& parameters = gemm.law.log_parameters();
  for (int i = 0; i < GemmLaw::kScalars; ++i) {
    law[std::string(GemmLaw::parameter_name(i))] = rounded(std::exp(parameters(i)));
  }
  law["footprint_bytes"] = array_of(GemmLaw::kNodeBytes);
  law["bandwidth_bytes_per_s"] = array_of(parameters.tail(GemmLaw::kNodes).array().exp().matrix());
  json["law"] = law;
  const Kriging& residual = gemm.residual;
  json["residual"]["lengths_octaves"] = array_of(residual.lengths());
  json["residual"]["variance"] = rounded(residual.variance());
  json["residual"]["noise"] = rounded(residual.noise());
  json["residual"]["weights"] = array_of(residual.weights());
  json["residual"]["features"] = array_of(residual.features().transpose().reshaped());
  json["half_width_ln"] = array_of(gemm.half_width);
  json["median_error_ratio"] = array_of(gemm.median_error);
  return json;
}

GemmCalibration read_gemm(const JsonView& view) {
  view.refuse_unknown_keys({"backend", "dtype", "threads", "points", "row_bucket", "packing", "law", "residual",
                            "half_width_ln", "median_error_ratio"});
  GemmCalibration gemm;
  gemm.backend = view.at("backend").as_string();
  gemm.dtype = read_dtype(view.at("dtype"));
  gemm.threads = static_cast<int>(view.at("threads").as_int(1, 4096));
  gemm.points = static_cast<int>(view.at("points").as_int(1, 1'000'000));
  const JsonView law = view.at("law");
  Eigen::VectorXd parameters(GemmLaw::kParameters);
  for (int i = 0; i < GemmLaw::kScalars; ++i) {
    parameters(i) = std::log(law.at(GemmLaw::parameter_name(i)).as_number(1e-300, 1e300));
  }
  const Eigen::VectorXd bandwidth = read_vector(law.at("bandwidth_bytes_per_s"), GemmLaw::kNodes);
  if (bandwidth.minCoeff() <= 0) throw InputError(law.where(), "holds a bandwidth that is not above zero");
  parameters.tail(GemmLaw::kNodes) = bandwidth.array().log();
  gemm.law = GemmLaw(read_traits(view, gemm.backend, gemm.dtype, gemm.threads), parameters);
  const JsonView residual = view.at("residual");
  const auto points = static_cast<std::size_t>(gemm.points);
  const Eigen::VectorXd features = read_vector(residual.at("features"), points * GemmLaw::kFeatures);
  const Eigen::VectorXd lengths = read_vector(residual.at("lengths_octaves"), GemmLaw::kFeatures);
  if (lengths.minCoeff() <= 0) throw InputError(residual.where(), "holds a length that is not above zero");
  gemm.residual = Kriging(features.reshaped(GemmLaw::kFeatures, static_cast<Eigen::Index>(points)).transpose(),
                          read_vector(residual.at("weights"), points), lengths,
                          residual.at("variance").as_number(1e-12, 1e6), residual.at("noise").as_number(0, 1e6));
  gemm.half_width = read_band_widths(view.at("half_width_ln"));
  gemm.median_error = read_band_widths(view.at("median_error_ratio"));
  return gemm;
}

Json stage_json(const StageCalibration& stage) {
  Json json;
  json["kind"] = to_string(stage.law.kind());
  json["dtype"] = to_string(stage.dtype);
  json["threads"] = stage.threads;
  json["gated"] = stage.gated;
  json["points"] = stage.points;
  const auto names = StageLaw::term_names(stage.law.kind());
  for (std::size_t i = 0; i < names.size(); ++i) {
    json["law"][std::string(names[i])] = rounded(stage.law.coefficients()(static_cast<Eigen::Index>(i)));
  }
  json["half_width_ln"] = rounded(stage.half_width);
  return json;
}

StageCalibration read_stage(const JsonView& view) {
  view.refuse_unknown_keys({"kind", "dtype", "threads", "gated", "points", "law", "half_width_ln"});
  StageCalibration stage;
  const auto kind = parse_operator_kind(view.at("kind").as_string());
  if (!kind) throw InputError(view.at("kind").where(), "is not an operator");
  stage.dtype = read_dtype(view.at("dtype"));
  stage.threads = static_cast<int>(view.at("threads").as_int(1, 4096));
  stage.gated = view.at("gated").as_bool();
  stage.points = static_cast<int>(view.at("points").as_int(1, 1'000'000));
  const auto names = StageLaw::term_names(*kind);
  Eigen::VectorXd coefficients(static_cast<Eigen::Index>(names.size()));
  for (std::size_t i = 0; i < names.size(); ++i) {
    coefficients(static_cast<Eigen::Index>(i)) = view.at("law").at(names[i]).as_number(0, 1e12);
  }
  stage.law = StageLaw(*kind, coefficients);
  stage.half_width = view.at("half_width_ln").as_number(0, 100);
  return stage;
}

}  // namespace

std::string calibration_text(const Calibration& calibration) {
  Json json;
  json["schema_version"] = kCalibrationSchemaVersion;
  json["profile"] = calibration.profile;
  json["gemms"] = Json::array();
  for (const GemmCalibration& gemm : calibration.gemms) json["gemms"].push_back(gemm_json(gemm));
  json["stages"] = Json::array();
  for (const StageCalibration& stage : calibration.stages) json["stages"].push_back(stage_json(stage));
  json["interval_ratio"] = rounded(calibration.closures.interval_ratio);
  json["closures"] = Json::array();
  for (const Closure& closure : calibration.closures.factors) {
    json["closures"].push_back({{"backend", closure.backend},
                                {"dtype", to_string(closure.dtype)},
                                {"threads", closure.threads},
                                {"strategy", to_string(closure.strategy)},
                                {"factor", rounded(closure.factor)},
                                {"layers", closure.layers}});
  }
  return dump_json_line(json) + "\n";
}

Calibration parse_calibration_text(std::string_view text, const std::string& where) {
  const Json document = parse_json(text, where);
  const JsonView root(document, where);
  const auto version = root.at("schema_version").as_int(0, 1'000'000);
  if (version != kCalibrationSchemaVersion) {
    throw InputError(
        root.at("schema_version").where(),
        "is " + std::to_string(version) + ", this program reads " + std::to_string(kCalibrationSchemaVersion),
        "make it again: moecast calibrate PROFILE");
  }
  root.refuse_unknown_keys({"schema_version", "profile", "gemms", "stages", "interval_ratio", "closures"});
  Calibration calibration;
  calibration.profile = root.at("profile").as_string();
  const JsonView gemms = root.at("gemms");
  for (std::size_t i = 0; i < gemms.size(); ++i) calibration.gemms.push_back(read_gemm(gemms.at(i)));
  const JsonView stages = root.at("stages");
  for (std::size_t i = 0; i < stages.size(); ++i) calibration.stages.push_back(read_stage(stages.at(i)));
  calibration.closures.interval_ratio = root.at("interval_ratio").as_number(1e-3, 1e3);
  const JsonView closures = root.at("closures");
  for (std::size_t i = 0; i < closures.size(); ++i) {
    const JsonView view = closures.at(i);
    Closure closure;
    closure.backend = view.at("backend").as_string();
    closure.dtype = read_dtype(view.at("dtype"));
    closure.threads = static_cast<int>(view.at("threads").as_int(1, 4096));
    const auto strategy = find_strategy(view.at("strategy").as_string());
    if (!strategy) throw InputError(view.at("strategy").where(), "is not a kernel strategy");
    closure.strategy = *strategy;
    closure.factor = view.at("factor").as_number(1e-3, 1e3);
    closure.layers = static_cast<int>(view.at("layers").as_int(1, 1'000'000));
    calibration.closures.factors.push_back(closure);
  }
  return calibration;
}

Calibration read_calibration(const std::string& folder) {
  const std::string path = folder + "/calibration.json";
  try {
    return parse_calibration_text(read_text_file(path), path);
  } catch (const InputError& error) {
    throw InputError(error.where(), error.problem(), "make it again: moecast calibrate " + folder);
  }
}

}  // namespace moecast
