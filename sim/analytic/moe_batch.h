#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "models/plan/deployment.h"
#include "models/routing/load.h"
#include "models/routing/row_classes.h"
#include "sim/cost/calibration.h"
#include "sim/cost/gemm_lanes.h"
#include "sim/cost/stage_lanes.h"

namespace moecast {

/// MoE layers as columns of equal length, one row a layer: token choice by a linear router, feed-forward experts all
/// alike, no shared experts, one rank. A column may be empty where a default is named.
struct MoeColumns {
  std::span<const std::int32_t> hidden;
  std::span<const std::int32_t> intermediate;
  std::span<const std::int32_t> experts;
  std::span<const std::int32_t> top_k;
  std::span<const std::int32_t> tokens;
  std::span<const std::uint8_t> gated;     ///< 0 or 1; empty = gated
  std::span<const float> capacity_factor;  ///< infinite = no limit; empty = none
  std::span<const std::int32_t> copies;    ///< layers between two uses of a weight; empty = 1
  std::span<const std::int32_t> load;      ///< index into the loads of the batch; empty = 0
  [[nodiscard]] std::size_t size() const { return hidden.size(); }
};

/// Answers, one a layer. An empty column is not written. Seconds.
struct MoeTimes {
  std::span<double> latency_s;
  std::span<double> low_s;  ///< 90 % interval
  std::span<double> high_s;
  std::span<double> memory_bandwidth_s;
  std::span<double> compute_s;
  std::span<double> routing_overhead_s;
  std::span<std::uint8_t> extrapolated;  ///< 1: some shape lies outside what was measured
};

/// Predicts many MoE layers of one backend, dtype, thread count and kernel strategy: what `Predictor` says of the same
/// layers, within 1 % at 99 of 100 of them (2 % in bf16 with tiles), at a small part of its cost.
class MoeBatch {
 public:
  /// @param deployment  backend, dtype, threads and strategy are read. @param loads  what column `load` refers to.
  /// @throws InputError when the calibration lacks a kernel, or ranks are more than one.
  MoeBatch(const Calibration& calibration, const Deployment& deployment,
           std::vector<ExpertLoad> loads = {ExpertLoad{}});

  /// Checks the columns and learns the loads that occur in them; needed once for each combination of load, experts
  /// and top-k. @throws InputError that names the row and what is wrong with it.
  void prepare(const MoeColumns& layers);

  /// @param layers  columns that `prepare` has seen, or others with the same loads, experts and top-k.
  /// Nothing is allocated, nothing throws; safe to call from many threads at once.
  /// @return false when a combination was not prepared; the answers from its block on are then not written.
  [[nodiscard]] bool predict(const MoeColumns& layers, const MoeTimes& times) const noexcept;

 private:
  struct Block;
  struct Stages {
    StageCoefficients router, permute, unpermute, plain, gated;
    bool has_plain = false;
    bool has_gated = false;
  };
  void check(const MoeColumns& layers) const;
  void check_row(const MoeColumns& layers, std::size_t row) const;
  [[nodiscard]] std::size_t class_index(std::size_t load, std::int64_t experts, std::int64_t top_k) const noexcept;
  void learn(std::size_t load, std::int64_t experts, int top_k);
  [[nodiscard]] bool fill(const MoeColumns& layers, std::size_t first, Block& block) const noexcept;
  [[nodiscard]] bool fill_rows(std::size_t lane, float capacity, std::size_t load, Block& block) const noexcept;
  void fill_footprints(Block& block) const noexcept;
  void cost_gemms(Block& block) const noexcept;
  void cost_stages(Block& block) const noexcept;
  void write(const Block& block, std::size_t first, const MoeTimes& times) const noexcept;

  KernelStrategy strategy_;
  std::vector<ExpertLoad> loads_;
  float element_bytes_;
  float weight_bytes_;
  float stored_columns_;  ///< the backend stores weights with columns rounded up to this
  GemmLanes gemms_;
  Stages stages_;
  double factor_ = 1;  ///< what executed layers say about sums of kernels
  double interval_ratio_ = 1;
  std::int64_t most_experts_ = 0;  ///< size of the table of classes
  std::int64_t most_top_k_ = 0;
  std::vector<std::int32_t> class_of_;  ///< [load, experts, top_k], -1 = not learnt
  struct Key {
    std::size_t load;
    std::int64_t experts, top_k;
  };
  std::vector<RowClasses> classes_;
  std::vector<Key> keys_;  ///< of each of the classes
};

}  // namespace moecast
