#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "hwprofiles/measurement.h"
#include "hwprofiles/profile.h"
#include "models/plan/deployment.h"
#include "sim/cost/cost_model.h"
#include "sim/cost/gemm_law.h"
#include "sim/cost/stage_law.h"
#include "sim/fit/kriging.h"

namespace moecast {

inline constexpr int kCalibrationSchemaVersion = 3;

/// Bands of rows (and of tokens) that errors and intervals are kept by: up to 16, 17 to 256, above.
inline constexpr int kBands = 3;
constexpr int band_of(double rows) { return rows <= 16 ? 0 : rows <= 256 ? 1 : 2; }

/// One (backend, dtype, threads) of GEMMs.
struct GemmCalibration {
  std::string backend;
  DType dtype = DType::fp32;
  int threads = 1;
  GemmLaw law;
  Kriging residual;
  /// 90 % quantile of |ln error| of left-out points, by band of m: the half width of an interval.
  std::array<double, kBands> half_width{};
  std::array<double, kBands> median_error{};  ///< of left-out points, a ratio
  int points = 0;
};

/// One (kind, dtype, threads, gated) of element-wise stages.
struct StageCalibration {
  DType dtype = DType::fp32;
  int threads = 1;
  bool gated = false;
  StageLaw law;
  double half_width = 0;
  int points = 0;
};

/// Executed layers against their predictions: what lies between the kernels.
struct Closure {
  std::string backend;
  DType dtype = DType::fp32;
  int threads = 1;
  KernelStrategy strategy = KernelStrategy::sorted_grouped;
  double factor = 1;  ///< median of measured / predicted
  int layers = 0;
};

/// What executed layers say about sums of kernels.
struct Closures {
  std::vector<Closure> factors;
  /// 90 % quantile over all executed layers of |ln(measured / predicted)| / the half width that the kernels give. The
  /// kernels' errors are added up as if those of one kind were all equal, so it is usually below 1.
  double interval_ratio = 1;

  /// Measured / predicted, by a closure of the same kind; 1 where there is none.
  [[nodiscard]] double factor(const std::string& backend, DType dtype, int threads, KernelStrategy strategy) const;
};

/// Everything that turns an operator of one machine into seconds.
struct Calibration {
  std::string profile;
  std::vector<GemmCalibration> gemms;
  std::vector<StageCalibration> stages;
  Closures closures;

  [[nodiscard]] const GemmCalibration* find_gemm(const std::string& backend, DType dtype, int threads) const;
  /// Falls back to another dtype of the same kind and threads.
  [[nodiscard]] const StageCalibration* find_stage(OperatorKind kind, DType dtype, int threads, bool gated) const;
};

/// Kinds that no law is fitted to: bandwidth of the caches, the smallest call, experts over ragged rows.
bool only_checks(OperatorKind kind);

/// Fits every (backend, dtype, threads) and stage that has at least eight points. Deterministic.
/// @throws InputError when nothing can be fitted.
Calibration calibrate(const Profile& profile, const std::vector<Measurement>& measurements);

/// calibration.json: equal calibrations give equal bytes. @throws InputError, DeviceError as the JSON layer.
std::string calibration_text(const Calibration& calibration);
Calibration parse_calibration_text(std::string_view text, const std::string& where);
/// FOLDER/calibration.json of a profile. It is derived, so the errors say how to make it again. @throws InputError
Calibration read_calibration(const std::string& folder);

std::shared_ptr<const CostModel> make_cost_model(std::shared_ptr<const Calibration> calibration);

/// The residual's feature vector and the law's call for a GEMM point.
GemmCall gemm_call(const KernelPoint& point);

}  // namespace moecast
