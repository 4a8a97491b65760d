#pragma once
#include <array>

#include "sim/cost/calibration.h"
#include "sim/fit/kriging_table.h"

namespace moecast {

/// Costs of kLanes GEMM calls at a time, in single precision: the law of GemmLaw exactly, its residual from a table.
///
/// Departs from the cost model by the table's tolerance. Nothing is allocated; safe to share between threads.
class GemmLanes {
 public:
  using Lane = std::array<float, kLanes>;
  /// Fields as in GemmCall.
  struct Calls {
    Lane m, n, k, footprint_bytes, input_footprint_bytes, output_footprint_bytes;
  };
  struct Costs {
    Lane seconds, memory_ratio, compute_ratio;
    Lane half_width;                        ///< of a 90 % interval of ln seconds
    std::array<bool, kLanes> extrapolated;  ///< outside what was measured
  };

  explicit GemmLanes(const GemmCalibration& calibration);
  /// @param count  lanes in use, from the first; the others must hold positive numbers.
  void cost(const Calls& calls, int count, Costs& costs) const noexcept;

  [[nodiscard]] const KrigingTable& residual() const { return residual_; }

 private:
  struct Terms;
  void round_rows(const Lane& m, Lane& rows) const noexcept;
  /// @param octaves  log2 of the footprint in bytes.
  [[nodiscard]] Lane seconds_per_byte(const Lane& octaves) const noexcept;
  /// As GemmLaw::passes.
  void passes(const Calls& calls, const Lane& rows, const Lane& weights, Lane& passes) const noexcept;
  /// As GemmLaw::busiest.
  void busiest(const Calls& calls, const Lane& rows, Lane& busiest) const noexcept;
  /// As GemmLaw::few_rows.
  void few_rows(const Lane& rows, const Lane& seconds_per_byte, Lane& factor) const noexcept;
  void physics(const Calls& calls, Terms& terms) const noexcept;
  [[nodiscard]] bool splits() const { return packs_some(traits_.packing); }

  GemmTraits traits_;
  float call_, per_flop_, rows0_, depth0_, columns0_, sharpness_, pack_, pack_alias_, pack_reads_, pack_depth_;
  float restream_depth_, private_cache_;
  float one_row_, two_rows_;  ///< how much longer they wait
  float near_, inverse_far_;  ///< seconds a byte from a cache; one over how much longer from memory, 0: no longer
  float input_reads_, output_writes_, input_again_, output_again_;  ///< times as many seconds a byte as weights
  /// log2 of seconds per byte as a sum of hinges: first_ + sum slope (log2 F - node)+.
  float first_;
  std::array<float, GemmLaw::kNodes> hinge_nodes_;
  std::array<float, GemmLaw::kNodes> hinge_slopes_;
  std::array<float, kBands> half_width_;
  float extrapolated_variance_;
  KrigingTable residual_;
};

}  // namespace moecast
