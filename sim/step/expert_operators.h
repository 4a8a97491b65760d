#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sim/step/placed_experts.h"
#include "sim/step/step_operators.h"
#include "sim/step/whole_layer_experts.h"

namespace moecast {

/// Routed experts of equal shape in layers that are alike.
struct ExpertCall {
  std::string name = "experts";
  ExpertSpec expert;
  std::int64_t count = 1;  ///< experts of a layer
  int top_k = 1;           ///< of a token
  std::int64_t width = 0;  ///< of the rows that are routed
  double share = 1;        ///< of a layer's rows that these experts see
  double layers = 1;       ///< that run them
  DType dtype = DType::bf16;
  double sigma = 1;                ///< of ln(popularity of an expert)
  bool dispatched = false;         ///< the kernel sees the rows that arrived, not those of all ranks
  std::string framework, version;  ///< of the engine
  /// Where the experts are; required where rows are dispatched or experts have copies.
  std::shared_ptr<const PlacedExperts> placed = nullptr;
  std::function<RankLoad(double tokens)> fullest{};  ///< the fullest rank's load; none: all ranks are alike
  bool recorded = false;          ///< popularity is not log-normal: what ranks touch is in `fullest` too
  std::vector<RankLoad> loads{};  ///< of each rank, exactly; empty: by popularity
  GroupLimit limit{};             ///< of the router's choice
  int shared = 0;                 ///< experts of the same kernel that every token takes beside those it chooses
};

/// Adds the experts' kernels: of few tokens at the experts that they touch, of many at the fullest rank's load, the
/// fastest of the kernels that the engine may pick.
/// @param calibration  must outlive the operators.
/// @throws InputError when ranks do not divide the experts or their width, or the profile has no expert kernel at all.
void add_experts(const ExpertCall& call, const Deployment& deployment, const KernelCalibration& calibration,
                 StepOperators& operators);

/// Of the kernel that the engine runs first; empty: none is known.
std::string expert_kernel(const ExpertCall& call, const Deployment& deployment, const KernelCalibration& calibration);

/// The law alone of experts that see the rows of all ranks, for whoever draws their loads. nullopt where the profile
/// has no expert kernel at all. @param notes  what stands in for what.
/// @throws InputError when ranks do not divide the experts or their width.
std::optional<WholeLayerExperts> whole_layer_experts(const ExpertCall& call, const Deployment& deployment,
                                                     const KernelCalibration& calibration,
                                                     std::vector<std::string>& notes);

/// Spread of ln(popularity) up to which experts are taken to be chosen alike.
inline constexpr double kEvenSigma = 0.05;
/// Most experts of a layer whose routing is drawn rank by rank.
inline constexpr std::int64_t kMostDrawnExperts = 4096;

/// Most experts of a layer.
inline constexpr std::int64_t kMostExperts = 1 << 17;

/// @throws InputError at `degree` when the ranks do not divide it.
std::int64_t divide_over(std::int64_t what, int ranks, const std::string& name, const std::string& degree);

}  // namespace moecast
