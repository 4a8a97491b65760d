#include "sim/step/kernel_doubt.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sim/step/step_model.h"

namespace moecast {
namespace {

/// Half width of ln seconds beyond the usual one, from which on it is said.
constexpr double kNoticedDoubt = 0.05;

}  // namespace

void doubt_far_kernel(const ReadyKernelData& kernel, const KernelRowValues& usual, StepOperator& op,
                      std::vector<std::string>& notes) {
  const CompiledKernel::Answer answer = kernel.at(usual);
  if (answer.origin != Origin::extrapolated) return;
  const double half_width = (answer.log_high - answer.log_low) / 2;
  const double beyond = half_width - usual_half_width(op.group);
  op.spread = std::max(op.spread, beyond);
  if (beyond < kNoticedDoubt) return;
  op.origin = Origin::extrapolated;
  const std::string note = fmt::format("{}: far from every shape that was measured; 90 % lie within a factor of {:.2f}",
                                       op.name, std::exp(half_width));
  if (std::ranges::find(notes, note) == notes.end()) notes.push_back(note);
}

void doubt_stand_in(StepOperator& op) {
  op.spread = std::max(op.spread, kOtherFormat);
  op.origin = Origin::extrapolated;
}

}  // namespace moecast
