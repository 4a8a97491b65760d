#pragma once
#include <Eigen/Core>
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "models/core/dtype.h"
#include "models/core/row_bucket.h"
#include "models/core/weight_packing.h"

namespace moecast {

/// What a CPU library does with a GEMM, as its source says; no property of a CPU.
struct GemmTraits {
  double pad_columns = 1;    ///< weights are stored with columns rounded up to this (oneDNN: 64)
  double block_columns = 0;  ///< threads share out blocks of so many columns and 64 rows; 0 = evenly (oneDNN: 64)
  double block_rows = 0;     ///< rows that one pass over the weights serves; 0 = all (oneDNN with AMX tiles: 64)
  WeightPacking packing = WeightPacking::ahead;
  RowBucket row_bucket = RowBucket::exact;
  int threads = 1;
  double element_bytes = 4;  ///< of weights and input rows; results are fp32
};

GemmTraits gemm_traits(std::string_view backend, DType dtype, int threads, RowBucket row_bucket, WeightPacking packing);

/// One call. Footprints are bytes touched between two uses of the same weights, of the same input rows, and of the
/// memory that takes the result.
struct GemmCall {
  double m = 0;
  double n = 0;
  double k = 0;
  double footprint_bytes = 0;
  double input_footprint_bytes = 0;
  double output_footprint_bytes = 0;
};

/// Physics of one GEMM on a CPU:
///   comp = b 2 m n16 k / P (1 + m0/m) (1 + k0/k) (1 + n0/n16)
///   mem  = b p W / BW(F') (1 + s f),  F' = max(F, W) + m k b + 4 m n
///   f    = (1 / BW(F') - 1 / BW(4 MB)) / (1 / BW(2 GB) - 1 / BW(4 MB)), 0 to 1: what of the weights comes from memory
///   p    = 1 + (r + (q - 1) / (1 + (kr/k)^2)) / (1 + (L/W)^2)         passes over the weights
///   rows = m k b / (r BW(A)) + 4 m n / (w BW(O))
///   t    = t0 + (comp^q + mem^q)^(1/q) + rows                          weights packed ahead
///   t    = t0 + comp + ((1 + a) W/BP + g mem) (1 + kp/k) + rows         weights packed at every call
/// n16 = n rounded up to 16, W = bytes of the stored weights, A and O the footprints of input and result (at least
/// their own bytes). Where a pass serves a block of rows only, m has q whole blocks and perhaps a rest (r = 1): shallow
/// weights (k below kr) stay in the core's cache from one block to the next, and so do small ones (W below L).
/// s is how much longer kernels of one and of two rows wait for weights from memory than those of more rows, for
/// which it is 0: on a Zen 4, oneDNN streams 16, 13 and 21 to 24 GB/s at one, two and more rows; in caches all are
/// alike. b is what the busiest of t threads has to do, in even shares: 5 blocks of columns on 2 threads give b = 6/5.
/// Packing reads the weights in short pieces and gets only 1/g of the streaming bandwidth; the product then reads what
/// has just been packed. a is 0, but how much longer packing takes where rows of weights start a multiple of
/// kAliasBytes apart (k = 1024, 2048, ... in fp32): those that are packed together share a set of the first cache.
/// Several rows are packed side by side, and each begins a stream of its own, k long. Source: measured on Xeon (AVX-512
/// and AMX); every coefficient is fitted to the machine at hand.
class GemmLaw {
 public:
  static constexpr int kNodes = 15;
  /// Index of each scalar; the bandwidths at the nodes follow.
  enum Parameter : int {
    kCall,
    kPeak,
    kRows0,
    kDepth0,
    kColumns0,
    kSharpness,
    kInputReads,
    kOutputWrites,
    kInputAgain,
    kOutputAgain,
    kRestreamDepth,
    kPrivateCache,
    kPack,
    kPackReads,
    kPackAlias,
    kPackDepth,
    kOneRow,
    kTwoRows,
    kScalars
  };
  static constexpr int kParameters = kScalars + kNodes;
  /// Footprints at which ln BW is a parameter, in bytes; linear in ln F between them.
  static constexpr std::array<double, kNodes> kNodeBytes{0.5e6, 1e6,  2e6,  4e6,   8e6,   16e6,  24e6,  32e6,
                                                         48e6,  64e6, 96e6, 128e6, 256e6, 512e6, 2048e6};
  /// Nodes at which weights come from a cache, and from memory.
  static constexpr int kNearNode = 3;
  static constexpr int kFarNode = kNodes - 1;
  /// Results are computed this many columns wide whatever the padding of the weights.
  static constexpr double kVectorColumns = 16;
  /// Input rows are read again for every panel of so many columns, results for every panel of so much depth.
  static constexpr double kPanelColumns = 64;
  static constexpr double kPanelDepth = 512;
  /// Rows of the blocks that threads share out.
  static constexpr double kBlockRows = 64;
  /// Rows of weights that are a multiple of this apart start in the same set of the first cache.
  static constexpr double kAliasBytes = 4096;
  /// Rows of so many fp32 columns start in the same set of the first cache.
  static constexpr double kAliasColumns = 1024;
  static constexpr double kMostAliasing = 4;
  /// Rows are cold this many octaves above the first node.
  static constexpr double kColdOctaves = 9;
  /// Name of a parameter with its unit, e.g. "peak_flops_per_s".
  static std::string_view parameter_name(int index);

  GemmLaw() = default;
  GemmLaw(GemmTraits traits, Eigen::VectorXd log_parameters);

  /// Fits the law. @param measured_s [calls], above zero. Priors are wide; the peak starts at the fastest call.
  static GemmLaw fit(const GemmTraits& traits, const std::vector<GemmCall>& calls, const Eigen::VectorXd& measured_s);

  [[nodiscard]] double log_seconds(const GemmCall& call) const;
  /// The part that would remain with infinite memory bandwidth, and with infinite arithmetic: for attributing time.
  [[nodiscard]] double memory_seconds(const GemmCall& call) const;
  [[nodiscard]] double compute_seconds(const GemmCall& call) const;
  /// Features of the residual: log2 m, n, k, F', coldness of input and of result, library path.
  static constexpr int kFeatures = 7;
  [[nodiscard]] Eigen::VectorXd features(const GemmCall& call) const;
  /// How much the rows of the weights alias in the caches: 0 unless n is a multiple of kAliasColumns, else 1, and where
  /// kernels read weights that are not packed one more for each further factor of two, up to kMostAliasing.
  [[nodiscard]] double aliasing(double n) const;
  [[nodiscard]] double weight_bytes(const GemmCall& call) const;
  [[nodiscard]] double bandwidth_bytes_per_s(double footprint_bytes) const;

  [[nodiscard]] const GemmTraits& traits() const { return traits_; }
  [[nodiscard]] const Eigen::VectorXd& log_parameters() const { return parameters_; }

 private:
  struct Terms;
  [[nodiscard]] Terms terms(const GemmCall& call) const;
  [[nodiscard]] double passes(double rows, double k, double weights) const;
  [[nodiscard]] double busiest(double rows, double n) const;
  [[nodiscard]] double few_rows(double rows, double seconds_per_byte) const;
  GemmTraits traits_;
  Eigen::VectorXd parameters_;  ///< natural logarithms, SI units
};

}  // namespace moecast
