#pragma once
#include <memory>
#include <string>

#include "sim/cost/kernel/kernel_data.h"
#include "sim/cost/kernel/kernel_model.h"

namespace moecast {

/// Curves of few points are not surfaces: they refine the configuration that they belong to, and nothing else.
/// A curve is short below 8 points and half of the usual length.
std::vector<bool> short_curves(const KernelData& data);

/// Corrections at the nodes of a model from the points of short curves: a Gaussian process over log2 of the position
/// (length 3, an offset and half of its variance along the curve, noise 0.03).
/// @param data  with all curves. Appends one row a short curve to the model's arrays.
void add_short_curves(const KernelData& data, const std::vector<bool>& is_short, KernelModel& model);

/// A machine with few samples of a kernel, and a model of the same kernel on its sister machine.
struct SisterFit {
  KernelModel model;
  double carried_ratio = 0;  ///< share of the sister's residual that is carried over; 0: physics alone
  double error_without = 0;  ///< median |ln error| of cross-validated samples at 0
  double error_with = 0;     ///< the same at the chosen share
};

/// What a model says beyond its law at the rows of another machine's data, ln; 0 where the host bounds a row.
Eigen::VectorXd model_residuals(const KernelData& data, const KernelModel& model);

/// Physics fitted to the samples with the priors of the law; the sister's residual is carried over at the share (0,
/// 0.5, 0.9) that serves left-out fifths of the samples best.
SisterFit fit_with_sister(const KernelSamples& samples, const std::shared_ptr<const KernelLaw>& law,
                          const KernelModel& sister, RankLoadCache& loads);

}  // namespace moecast
