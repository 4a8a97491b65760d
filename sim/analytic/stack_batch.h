#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "hwprofiles/profile.h"
#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"
#include "sim/analytic/memo_cost_model.h"
#include "sim/cost/calibration.h"

namespace moecast {

/// Whole models as rows of part numbers, each row `width` long; -1 = nothing there.
struct StackRows {
  std::span<const std::int32_t> parts;
  std::size_t width = 0;
  [[nodiscard]] std::size_t size() const { return width == 0 ? 0 : parts.size() / width; }
  [[nodiscard]] std::span<const std::int32_t> row(std::size_t i) const { return parts.subspan(i * width, width); }
};

/// Status of a row.
enum class StackStatus : std::uint8_t { ok = 0, does_not_fit = 1, outside_range = 2 };

/// Answers, one a row; an empty column is not written. Seconds, bytes, counts. Unknown is NaN: every time of a row
/// whose status is not ok, FLOPs and calls of one with parts that cannot be timed.
struct StackTimes {
  std::span<double> latency_s;
  std::span<double> low_s;  ///< 90 % interval
  std::span<double> high_s;
  std::span<double> memory_bandwidth_s;
  std::span<double> compute_s;
  std::span<double> routing_overhead_s;
  std::span<double> memory_bytes;  ///< weights, KV cache, activations and workspace
  std::span<double> parameters;
  std::span<double> active_parameters;
  std::span<double> flops;
  std::span<double> calls;               ///< kernel calls: each expert's GEMM is one
  std::span<std::uint8_t> status;        ///< StackStatus
  std::span<std::uint8_t> extrapolated;  ///< 1: some shape lies outside what was measured
};

/// Predicts one step of many models that share layers: what `Predictor` says of the same models on one rank of a CPU,
/// within 1 %, at a small part of its cost. A part is a layer, or an end of a model (embedding; norm and head).
///
/// Costs of a part depend on two footprints, those of the whole step and of its largest layer. They are kept at
/// half octaves of the one and octaves of the other, and interpolated between.
class StackBatch {
 public:
  /// @throws InputError when more than one rank is asked for.
  StackBatch(Profile profile, std::shared_ptr<const Calibration> calibration, Deployment deployment, Workload workload);
  /// @param folder  of a CPU's profile. @throws InputError
  static std::unique_ptr<StackBatch> load(const std::string& folder, Deployment deployment, Workload workload);

  /// Numbers of the parts that make up the model: end and layers of the encoder, then of the decoder; equal parts have
  /// equal numbers. A stack that the phase does not run takes memory but no time.
  /// @throws InputError on a model that the phase cannot run.
  std::vector<std::int32_t> parts_of(const Architecture& architecture);
  /// The number of a layer whose blocks are those of other layers, one after another; equal lists have equal numbers.
  /// @param layers  numbers of layers, at least one. @throws InputError on a number that `parts_of` did not give.
  std::int32_t stacked(std::span<const std::int32_t> layers);
  [[nodiscard]] std::size_t part_count() const { return parts_.size(); }
  /// Why a part cannot be timed; empty = it can.
  [[nodiscard]] const std::string& problem(std::int32_t part) const {
    return parts_[static_cast<std::size_t>(part)].problem;
  }

  /// Computes the costs that the rows need; rows with the same parts and like footprints need it once.
  /// @throws InputError on a number that `parts_of` did not give.
  void prepare(const StackRows& rows);

  /// Nothing is allocated, nothing throws; safe to call from many threads while nobody prepares.
  /// @return false when some row was not prepared; it and the rows after it are then not written.
  [[nodiscard]] bool predict(const StackRows& rows, const StackTimes& times) const noexcept;

 private:
  static constexpr int kKinds = 12;
  static constexpr int kColumns = 5 + kKinds;  ///< latency, memory, compute, routing, extrapolated; spread by kind
  static constexpr int kStepFirst = 32;        ///< half octaves: footprints of steps start at 2^16 bytes ...
  static constexpr int kStepNodes = 60;        ///< ... and end at 2^45.5
  static constexpr int kLayerFirst = 12;       ///< octaves: those of layers start at 2^12 bytes ...
  static constexpr int kLayerNodes = 32;       ///< ... and end at 2^43
  using Costs = std::array<double, kColumns>;

  /// What does not depend on footprints: bytes, counts, operations.
  struct Totals {
    double parameters = 0, active = 0, flops = 0, calls = 0;
    double weights = 0, cache = 0, activations = 0, workspace = 0;
    void add(const Totals& more) noexcept;  ///< one after the other: activations and workspace are used again
  };
  struct Part {
    OperatorGraph graph;
    std::vector<std::int32_t> members;  ///< layers that it consists of; it has no graph of its own then
    std::string problem;
    double stored = 0, kv = 0, activations = 0, layer = 0;
    Totals totals;
    std::vector<std::int32_t> nodes;  ///< [step][layer] -> index into costs_, -1 = not computed
  };
  struct Place {
    int step = 0, layer = 0;
    double step_weight = 0, layer_weight = 0;  ///< of the upper node
  };
  struct Sum;

  std::int32_t intern(const Architecture& frame, const Layer* layer, bool encoder, bool rests);
  Part make_part(const Architecture& frame, const Layer* layer, bool encoder, bool rests) const;
  [[nodiscard]] std::string first_unknown(const OperatorGraph& graph) const;
  [[nodiscard]] Place place_of(std::span<const std::int32_t> row) const noexcept;
  /// Where the costs of a part at two footprints are in costs_; computed where they are not there yet.
  std::int32_t cost_at(std::int32_t number, int step, int layer);
  void write(const Sum& sum, std::size_t row, const StackTimes& times) const noexcept;

  Profile profile_;
  std::shared_ptr<const Calibration> calibration_;
  MemoCostModel model_;
  Deployment deployment_;
  Workload workload_;
  double factor_ = 1;
  double interval_ratio_ = 1;
  std::optional<double> capacity_bytes_;  ///< nullopt = the profile does not know
  std::vector<Part> parts_;
  std::vector<Costs> costs_;
  std::unordered_map<std::string, std::int32_t> numbers_;
};

}  // namespace moecast
