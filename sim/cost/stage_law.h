#pragma once
#include <Eigen/Core>
#include <array>
#include <string_view>
#include <vector>

#include "hwprofiles/measurement.h"

namespace moecast {

/// Bytes that an element-wise kernel or an attention core reads and writes.
Bytes stage_bytes(const KernelPoint& point);
/// Arithmetic of an attention core: 4 FLOPs a head element and visible key; zero for the other kinds.
Flops stage_flops(const KernelPoint& point);

/// Linear law of everything on a CPU that is no GEMM: a sum of non-negative terms.
///
///   t = c0 + c1 rows + c2 elements + ... + sum over footprint nodes of bytes * hat(node) * s
/// Decoding reads the rows of one head after another from a cache that holds those of all heads side by side: from
/// memory every piece waits (20 to 50 ns on a Zen 4, where what lies in one piece streams at 24 GB/s).
/// The coefficients of the bytes are inverse bandwidths at footprints of 1, 4, 16, 64 and 256 MB (hats linear in
/// ln F), so no cache size is assumed. Fitted by non-negative least squares on relative error.
class StageLaw {
 public:
  static constexpr int kByteNodes = 5;
  /// Of attention_decode, right before the bytes: rows of a head that lie apart in memory, and their bytes.
  static constexpr int kPieceTerms = 2;
  /// Footprints of the byte terms, in bytes.
  static constexpr std::array<double, kByteNodes> kNodeBytes{1e6, 4e6, 16e6, 64e6, 256e6};

  StageLaw() = default;
  explicit StageLaw(OperatorKind kind, Eigen::VectorXd coefficients);
  /// @param points  all of one kind, at least one.
  static StageLaw fit(const std::vector<Measurement>& points);

  [[nodiscard]] Seconds seconds(const KernelPoint& point) const;
  /// The part that is bytes over bandwidth.
  [[nodiscard]] Seconds memory_seconds(const KernelPoint& point) const;
  [[nodiscard]] const Eigen::VectorXd& coefficients() const { return coefficients_; }
  [[nodiscard]] OperatorKind kind() const { return kind_; }
  /// Names of the terms with their units, in the order of the coefficients.
  static std::vector<std::string_view> term_names(OperatorKind kind);

 private:
  OperatorKind kind_ = OperatorKind::elementwise;
  Eigen::VectorXd coefficients_;
};

}  // namespace moecast
