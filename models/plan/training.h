#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "models/core/dtype.h"

namespace moecast {

/// Parts of a model that are trained or frozen as a whole.
///
/// attention: all mixers of tokens (state-space, recurrent too). shared: what every token of a MoE block passes beside
/// the routed experts (shared experts, dense residual, projections to a latent width). Tied embeddings are `embedding`.
enum class ModelPart { embedding, attention, router, experts, shared, dense, norms, head };
inline constexpr std::size_t kModelParts = 8;
std::string_view to_string(ModelPart part);

enum class Optimizer { sgd, momentum, adam };
std::string_view to_string(Optimizer optimizer);
std::optional<Optimizer> find_optimizer(std::string_view text);
/// States that it keeps of every trained weight: 0, 1 or 2.
int optimizer_states(Optimizer optimizer);

/// What the backward pass computes again instead of keeping it.
///
/// selective: norms, activation functions and attention cores, which are large to keep and cheap to make; results of
/// GEMMs are kept (Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models").
/// full: whole layers; only their inputs are kept.
enum class Recomputation { none, selective, full };
std::string_view to_string(Recomputation recomputation);
std::optional<Recomputation> find_recomputation(std::string_view text);

/// How a model is trained. A step is one update of the weights.
struct TrainingPlan {
  std::array<bool, kModelParts> frozen{};
  /// The gradient of the model's input is wanted too: the model is a part of a larger one, or is attacked.
  bool input_gradient = false;
  Optimizer optimizer = Optimizer::adam;
  DType state_dtype = DType::fp32;      ///< of the optimiser's states
  std::optional<DType> gradient_dtype;  ///< nullopt: the weights', at least 2 bytes
  bool master_weights = true;           ///< an fp32 copy of trained weights that are narrower
  Recomputation recomputation = Recomputation::none;
  std::int64_t accumulation = 1;  ///< micro-batches whose gradients are added up before the update
  std::int64_t replicas = 1;      ///< whole copies of the deployment (tp * dp ranks each) that share the batch
  /// 0: every replica keeps all. 1: each keeps a share of the optimiser's states (ZeRO-1), gradients are
  /// reduce-scattered, and updated weights gathered. 2: a share of the gradients too, which are reduce-scattered after
  /// every micro-batch. 3: a share of the weights too: each layer's are gathered before every forward and every
  /// backward pass over it, and forgotten after it (Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward
  /// Training Trillion Parameter Models").
  int zero_stage = 0;
  /// Forward and backward passes over the same batch, one after another. Above 1 for attacks only.
  std::int64_t passes = 1;

  [[nodiscard]] bool trains(ModelPart part) const { return !frozen[static_cast<std::size_t>(part)]; }
  [[nodiscard]] bool trains_nothing() const;
  friend bool operator==(const TrainingPlan&, const TrainingPlan&) = default;
};

/// Evaluation of robustness: FGSM is one forward and one backward pass, PGD-n is n of both. All weights are frozen, the
/// gradient of the input is wanted; the signed step of the input, a pass over it, is not counted.
/// @throws InputError below one step.
TrainingPlan attack_plan(std::int64_t steps);

struct Workload;
struct Deployment;
/// Sequences of one micro-batch on one replica.
/// @throws InputError at the field when the plan is impossible: a count below one, a batch that replicas and
/// micro-batches do not divide, nothing to compute a gradient of, passes of anything but an attack, a stage of ZeRO
/// above 3.
std::int64_t micro_batch(const Workload& workload, const Deployment& deployment);

/// Format of gradients where the plan says none.
DType gradient_dtype(const TrainingPlan& plan, DType weights);

}  // namespace moecast
