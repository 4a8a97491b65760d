#include "sim/cost/gemm_law.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "sim/fit/least_squares.h"

namespace moecast {
namespace {

constexpr double kSmoothWeight = 0.3;  ///< of second differences of ln BW over the nodes
constexpr double kPriorWeight = 0.15;
constexpr double kSoftScale = 0.1;

struct Prior {
  std::string_view name;
  double value;  ///< SI
  double width;  ///< of the natural logarithm
};

constexpr std::array<Prior, GemmLaw::kScalars> kPriors{{
    {"call_s", 0.3e-6, 1.0},
    {"peak_flops_per_s", 160e9, 1.5},
    {"row_overhead_rows", 1, 1.0},
    {"depth_overhead_columns", 4, 1.0},
    {"column_overhead_columns", 4, 1.0},
    {"overlap_sharpness", 1.1, 0.3},
    {"input_bandwidth_ratio", 1, 0.7},
    {"output_bandwidth_ratio", 0.5, 0.7},
    {"input_again_bandwidth_ratio", 3, 1.0},
    {"output_again_bandwidth_ratio", 3, 1.0},
    {"restream_depth_columns", 1000, 1.0},
    {"private_cache_bytes", 2e6, 0.7},
    {"pack_bytes_per_s", 12e9, 0.7},
    {"pack_read_factor", 1, 0.7},
    {"pack_alias_wait_ratio", 0.3, 1.5},
    {"pack_depth_columns", 50, 1.0},
    {"one_row_wait_ratio", 0.05, 1.5},
    {"two_rows_wait_ratio", 0.05, 1.5},
}};

constexpr std::array<double, GemmLaw::kNodes> kBandwidthPrior{200e9, 150e9, 80e9, 50e9, 40e9, 35e9, 33e9, 30e9,
                                                              26e9,  22e9,  20e9, 18e9, 14e9, 12e9, 11e9};
constexpr double kBandwidthWidth = 0.7;

/// Rows touched lately (0) to rows that come from main memory (1), in octaves from half a megabyte.
double coldness(double footprint_bytes) {
  return std::clamp(std::log2(std::max(footprint_bytes, 1.0) / GemmLaw::kNodeBytes[0]) / GemmLaw::kColdOctaves, 0.0,
                    1.0);
}

double round_up(double value, double multiple) { return std::ceil(value / multiple) * multiple; }

}  // namespace

std::string_view GemmLaw::parameter_name(int index) {
  return index < kScalars ? kPriors[static_cast<std::size_t>(index)].name : "bandwidth_bytes_per_s";
}

GemmTraits gemm_traits(std::string_view backend, DType dtype, int threads, RowBucket row_bucket,
                       WeightPacking packing) {
  GemmTraits traits;
  if (backend == "onednn" && packing == WeightPacking::ahead) traits.pad_columns = traits.block_columns = 64;
  traits.threads = threads;
  if (row_bucket == RowBucket::tile16) traits.block_rows = GemmLaw::kBlockRows;
  traits.row_bucket = row_bucket;
  traits.packing = packing;
  traits.element_bytes = bytes_per_element(dtype);
  return traits;
}

struct GemmLaw::Terms {
  double rows, columns16, footprint, weights;
  bool packs;
  double call, compute, memory, row_traffic;
};

GemmLaw::GemmLaw(GemmTraits traits, Eigen::VectorXd log_parameters)
    : traits_(traits), parameters_(std::move(log_parameters)) {}

double GemmLaw::bandwidth_bytes_per_s(double footprint_bytes) const {
  const auto upper = std::upper_bound(kNodeBytes.begin(), kNodeBytes.end(), footprint_bytes);
  const auto node = [&](std::ptrdiff_t i) { return parameters_(kScalars + static_cast<Eigen::Index>(i)); };
  if (upper == kNodeBytes.begin()) return std::exp(node(0));
  if (upper == kNodeBytes.end()) return std::exp(node(kNodes - 1));
  const std::ptrdiff_t i = upper - kNodeBytes.begin() - 1;
  const double share = std::log(footprint_bytes / *(upper - 1)) / std::log(*upper / *(upper - 1));
  return std::exp(node(i) + share * (node(i + 1) - node(i)));
}

double GemmLaw::weight_bytes(const GemmCall& call) const {
  return round_up(call.n, traits_.pad_columns) * call.k * traits_.element_bytes;
}

double GemmLaw::passes(double rows, double k, double weights) const {
  if (traits_.block_rows <= 0 || std::ceil(rows) <= traits_.block_rows) return 1;
  const double whole = std::ceil(rows);  // an expected row count keeps its fraction
  const double blocks = std::floor(whole / traits_.block_rows);
  const double rest = whole > blocks * traits_.block_rows ? 1 : 0;
  const double depth = std::exp(parameters_(kRestreamDepth)) / k;
  const double cache = std::exp(parameters_(kPrivateCache)) / weights;
  return 1 + (rest + (blocks - 1) / (1 + depth * depth)) / (1 + cache * cache);
}

double GemmLaw::busiest(double rows, double n) const {
  if (traits_.threads <= 1 || traits_.block_columns <= 0) return 1;
  const double threads = traits_.threads;
  const auto share = [&](double blocks) { return std::ceil(blocks / threads) * threads / blocks; };
  const double columns = std::ceil(n / traits_.block_columns);
  const double whole = std::ceil(rows);
  if (traits_.block_rows <= 0) return share(columns * std::ceil(whole / kBlockRows));
  // Whole blocks of rows are a call of their own.
  const double blocks = std::floor(whole / kBlockRows);
  const double rest = (whole - blocks * kBlockRows) / whole;
  return (blocks > 0 ? (1 - rest) * share(columns * blocks) : 0) + rest * share(columns);
}

/// Factor on the time in which weights are read. Between whole rows, which an expectation has, linear.
double GemmLaw::few_rows(double rows, double seconds_per_byte) const {
  if (rows >= 3) return 1;
  const double near = std::exp(-parameters_(kScalars + kNearNode));
  const double far = std::exp(-parameters_(kScalars + kFarNode));
  if (far <= near) return 1;
  const double one = std::exp(parameters_(kOneRow));
  const double two = std::exp(parameters_(kTwoRows));
  const double waits = rows <= 2 ? one + (two - one) * std::max(0.0, rows - 1) : two * (3 - rows);
  return 1 + waits * std::clamp((seconds_per_byte - near) / (far - near), 0.0, 1.0);
}

double GemmLaw::aliasing(double n) const {
  if (std::fmod(n, kAliasColumns) != 0) return 0;
  if (traits_.packing != WeightPacking::none) return 1;
  double octaves = 1;
  for (double step = 2 * kAliasColumns; octaves < kMostAliasing && std::fmod(n, step) == 0; step *= 2) ++octaves;
  return octaves;
}

GemmLaw::Terms GemmLaw::terms(const GemmCall& call) const {
  Terms t{};
  const auto value = [&](Parameter p) { return std::exp(parameters_(p)); };
  // A fractional row count comes from an expectation: the bucket of its ceiling would jump, so it keeps its fraction.
  const double whole = std::ceil(call.m);
  t.rows = call.m + static_cast<double>(row_bucket(traits_.row_bucket, static_cast<std::int64_t>(whole))) - whole;
  t.columns16 = round_up(call.n, kVectorColumns);
  t.weights = weight_bytes(call);
  const double input = t.rows * call.k * traits_.element_bytes;
  const double output = 4 * t.rows * call.n;
  t.footprint = std::max(call.footprint_bytes, t.weights) + input + output;
  t.packs = packs_weights(traits_.packing, t.rows, call.n, call.k);
  t.call = value(kCall);
  t.compute = 2 * t.rows * t.columns16 * call.k / value(kPeak) * (1 + value(kRows0) / t.rows) *
              (1 + value(kDepth0) / call.k) * (1 + value(kColumns0) / t.columns16);
  const double seconds_per_byte = 1 / bandwidth_bytes_per_s(t.footprint);
  t.memory = t.weights * seconds_per_byte * few_rows(t.rows, seconds_per_byte);
  t.row_traffic =
      input / (value(kInputReads) * bandwidth_bytes_per_s(std::max(call.input_footprint_bytes, input))) +
      output / (value(kOutputWrites) * bandwidth_bytes_per_s(std::max(call.output_footprint_bytes, output)));
  t.row_traffic += input * (call.n / kPanelColumns) / (value(kInputAgain) * bandwidth_bytes_per_s(input)) +
                   output * (call.k / kPanelDepth) / (value(kOutputAgain) * bandwidth_bytes_per_s(output));
  const double busiest_thread = busiest(t.rows, call.n);
  t.compute *= busiest_thread;
  t.memory *= busiest_thread * passes(t.rows, call.k, t.weights);
  if (!t.packs) return t;
  const bool aliased = std::fmod(call.k * traits_.element_bytes, kAliasBytes) == 0;
  t.memory = (t.weights / value(kPack) * (aliased ? 1 + value(kPackAlias) : 1) + value(kPackReads) * t.memory) *
             (1 + value(kPackDepth) / call.k);
  return t;
}

double GemmLaw::log_seconds(const GemmCall& call) const {
  const Terms t = terms(call);
  if (t.packs) return std::log(t.call + t.compute + t.memory + t.row_traffic);
  const double q = 1 + std::exp(parameters_(kSharpness));
  const double both = std::pow(std::pow(t.compute, q) + std::pow(t.memory, q), 1 / q);
  return std::log(t.call + both + t.row_traffic);
}

double GemmLaw::memory_seconds(const GemmCall& call) const {
  const Terms t = terms(call);
  return t.memory + t.row_traffic;
}

double GemmLaw::compute_seconds(const GemmCall& call) const { return terms(call).compute; }

Eigen::VectorXd GemmLaw::features(const GemmCall& call) const {
  const Terms t = terms(call);
  Eigen::VectorXd x(kFeatures);
  // Two octaves apart where the library takes another path.
  const bool splits = packs_some(traits_.packing);
  const double path = splits ? (t.packs ? 2.0 : 0.0) : aliasing(call.n);
  x << std::log2(t.rows), std::log2(call.n), std::log2(call.k), std::log2(t.footprint),
      coldness(call.input_footprint_bytes), coldness(call.output_footprint_bytes), path;
  return x;
}

GemmLaw GemmLaw::fit(const GemmTraits& traits, const std::vector<GemmCall>& calls, const Eigen::VectorXd& measured_s) {
  Eigen::VectorXd prior(kParameters);
  Eigen::VectorXd width(kParameters);
  for (int i = 0; i < kScalars; ++i) {
    prior(i) = std::log(kPriors[static_cast<std::size_t>(i)].value);
    width(i) = kPriors[static_cast<std::size_t>(i)].width;
  }
  double fastest = 0;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    fastest = std::max(fastest, 2 * calls[i].m * calls[i].n * calls[i].k / measured_s(static_cast<Eigen::Index>(i)));
  }
  if (fastest > 0) prior(kPeak) = std::log(fastest);
  for (int i = 0; i < kNodes; ++i) {
    prior(kScalars + i) = std::log(kBandwidthPrior[static_cast<std::size_t>(i)]);
    width(kScalars + i) = kBandwidthWidth;
  }
  LeastSquaresProblem problem;
  problem.soft_scale = kSoftScale;
  problem.residuals = [&](const Eigen::VectorXd& parameters) {
    const GemmLaw law(traits, parameters);
    Eigen::VectorXd r(static_cast<Eigen::Index>(calls.size()));
    for (std::size_t i = 0; i < calls.size(); ++i) {
      const auto j = static_cast<Eigen::Index>(i);
      r(j) = law.log_seconds(calls[i]) - std::log(measured_s(j));
    }
    return r;
  };
  problem.penalties = [&](const Eigen::VectorXd& parameters) {
    Eigen::VectorXd r(kParameters + kNodes - 2);
    r.head(kParameters) = kPriorWeight * (parameters - prior).cwiseQuotient(width);
    for (int i = 0; i < kNodes - 2; ++i) {
      const int at = kScalars + i;
      r(kParameters + i) = kSmoothWeight * (parameters(at) - 2 * parameters(at + 1) + parameters(at + 2));
    }
    return r;
  };
  return {traits, fit_least_squares(problem, prior)};
}

}  // namespace moecast
