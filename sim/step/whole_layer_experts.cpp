#include "sim/step/whole_layer_experts.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace moecast {
namespace {

/// Routing of few tokens follows the experts that they touch, of many the fullest rank; in between both.
constexpr double kFewTokens = 64;
constexpr double kManyTokens = 512;

}  // namespace

double fastest(const std::vector<ReadyKernel>& kernels, const KernelRowValues& row,
               const std::optional<RankLoad>& load) {
  double least = kernels.front()->seconds(row, load);
  for (std::size_t i = 1; i < kernels.size(); ++i) least = std::min(least, kernels[i]->seconds(row, load));
  return least;
}

WholeLayerExperts::WholeLayerExperts(std::vector<ReadyKernel> few, std::vector<ReadyKernel> many,
                                     const KernelRowValues& even, const KernelRowValues& skewed, double rank_share)
    : few_(std::move(few)),
      many_(std::move(many)),
      even_(even),
      skewed_(skewed),
      rank_share_(rank_share),
      tokens_(find_kernel_layout("moe")->column("num_tokens")) {}

KernelRowValues WholeLayerExperts::row(double tokens) const {
  KernelRowValues asked = even_;
  return asked.set(tokens_, tokens);
}

double WholeLayerExperts::seconds(double tokens, double touched, const std::optional<RankLoad>& load) const {
  const double share = std::clamp(std::log2(tokens / kFewTokens) / std::log2(kManyTokens / kFewTokens), 0.0, 1.0);
  double seconds = 0;
  if (share < 1) {
    // The balanced curve where it touches as many experts: a row each.
    KernelRowValues asked = even_;
    asked.set(tokens_, std::max(1.0, touched * rank_share_));
    seconds += (1 - share) * fastest(few_, asked, RankLoad{touched, touched, 1});
  }
  if (share > 0) {
    KernelRowValues asked = skewed_;
    seconds += share * fastest(many_, asked.set(tokens_, tokens), load);
  }
  return seconds;
}

}  // namespace moecast
