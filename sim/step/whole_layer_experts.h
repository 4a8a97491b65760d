#pragma once
#include <cstddef>
#include <optional>
#include <vector>

#include "sim/cost/kernel/ready_kernel.h"

namespace moecast {

/// Seconds of a layer's routed experts on a rank that sees the rows of all ranks, at any load of it: of few tokens by
/// the experts that they touch, of many by the rank's load, in between both. One law for the closed form, which asks
/// with expectations, and for events, which ask with what was drawn.
class WholeLayerExperts {
 public:
  /// @param few, many  kernels of which the engine runs the fastest, at `even` and at `skewed` rows. At least one each.
  /// @param rank_share  ranks over top-k: tokens that touch an expert of a rank once.
  WholeLayerExperts(std::vector<ReadyKernel> few, std::vector<ReadyKernel> many, const KernelRowValues& even,
                    const KernelRowValues& skewed, double rank_share);

  /// @param tokens  of all ranks. @param touched  experts of this rank that they touch.
  /// @param load  of this rank; nullopt: the one that the table was measured with.
  [[nodiscard]] double seconds(double tokens, double touched, const std::optional<RankLoad>& load) const;

  [[nodiscard]] const ReadyKernelData& best() const { return *few_.front(); }
  /// The configuration that `best` is asked for, at so many tokens.
  [[nodiscard]] KernelRowValues row(double tokens) const;

 private:
  std::vector<ReadyKernel> few_;
  std::vector<ReadyKernel> many_;
  KernelRowValues even_;
  KernelRowValues skewed_;
  double rank_share_;
  std::size_t tokens_;  ///< column
};

/// An engine that tunes itself runs the fastest kernel.
double fastest(const std::vector<ReadyKernel>& kernels, const KernelRowValues& row,
               const std::optional<RankLoad>& load);

}  // namespace moecast
