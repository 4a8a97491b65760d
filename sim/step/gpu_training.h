#pragma once
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "models/plan/operator.h"
#include "sim/analytic/analytic.h"
#include "sim/cost/kernel/ready_kernel.h"
#include "sim/step/collective_cost.h"

namespace moecast {

/// Operators of a training step on a GPU, from kernels that inference measured.
///
/// GEMMs, and the GEMMs of their gradients, are the machine's linear layers of that shape. Experts are one such GEMM
/// over all their rows, and the bandwidth of the weights (gradients of weights: of the results) that one GEMM would not
/// have. Attention is the prefill kernel; its gradient takes as much longer as it computes more. Collectives are
/// NCCL's. Loops between GEMMs, where no table helps, are bytes at the share of bandwidth that such kernels usually
/// reach, and have a wide interval. The host of a training framework is not part of it: kernels are taken to follow
/// each other.
class GpuTrainingTimes {
 public:
  /// @param kernels  must outlive the object. @param deployment  the same; its backend may be empty: any framework.
  /// @param replicas  whole copies of the deployment that share the batch; nullopt: the ranks of every collective are
  /// taken to be neighbours, for a network that knows better where they lie.
  GpuTrainingTimes(const KernelCalibration& kernels, const Deployment& deployment,
                   std::optional<std::int64_t> replicas);

  /// @throws InputError when the profile holds no linear layer at all.
  [[nodiscard]] OperatorTime of(const Operator& op) const;
  /// Of a collective, before its bytes flow: what a single element takes. 0 of any other operator.
  [[nodiscard]] double start_s(const Operator& op) const;
  /// What stands for what, each once.
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Cost {
    double seconds = 0;
    double half_width = 0;
    Origin origin = Origin::assumed;
  };
  [[nodiscard]] Cost gemm(const Operator& op) const;
  [[nodiscard]] Cost attention(const Operator& op) const;
  [[nodiscard]] Cost collective(const Operator& op) const;
  [[nodiscard]] CollectiveCost collective_of(const Operator& op) const;
  [[nodiscard]] Cost physics(double bytes, double flops) const;
  [[nodiscard]] ReadyKernel linear(std::int64_t n, std::int64_t k, DType dtype) const;
  void note(const std::string& text) const;

  const KernelCalibration& kernels_;
  const Deployment& deployment_;
  std::optional<std::int64_t> replicas_;
  std::string framework_, version_;
  mutable std::map<std::tuple<std::int64_t, std::int64_t, DType>, ReadyKernel> linear_;
  mutable std::vector<std::string> notes_;
};

}  // namespace moecast
