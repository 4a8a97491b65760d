#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/architecture/attention.h"

namespace moecast {

enum class Activation { relu, relu_squared, gelu, silu, identity };
enum class ExpertKind { ffn, transformer, convolution, recurrent, identity };

/// One expert, or a dense feed-forward network: a typed sub-graph from hidden back to hidden.
///
/// `ffn`: `depth` stacked networks hidden -> width -> hidden; gated = three matrices, else two.
/// `transformer`: attention over the routed tokens alone (ragged), then the ffn.
struct ExpertSpec {
  ExpertKind kind = ExpertKind::ffn;
  std::int64_t width = 0;
  int depth = 1;
  bool gated = true;
  bool bias = false;
  Activation activation = Activation::silu;
  std::int64_t heads = 0;        ///< transformer only
  std::int64_t head_dim = 0;     ///< transformer only
  std::int64_t kernel_size = 0;  ///< convolution only
  std::int64_t output = 0;       ///< width of the result, 0 = that of the input (classes of a lone classifier block)
  friend bool operator==(const ExpertSpec&, const ExpertSpec&) = default;
};

/// Consecutive experts that are alike. A heterogeneous layer lists several.
struct ExpertGroup {
  std::int64_t count = 0;
  ExpertSpec expert;
  std::string modality;  ///< empty = any token
  friend bool operator==(const ExpertGroup&, const ExpertGroup&) = default;
};

/// A block whose cost the user states.
struct OwnCostBlock {
  std::string name;
  double parameters = 0;
  double flops_per_token = 0;
  double bytes_per_token = 0;
  friend bool operator==(const OwnCostBlock&, const OwnCostBlock&) = default;
};

enum class RouterKind { token_choice, expert_choice, hash, soft, architecture };
enum class RouterNetwork { linear, mlp, attention, own_cost, none };
enum class ScoreFunction { softmax, sigmoid, sqrt_softplus };
enum class ScoreOrder { score_then_top_k, top_k_then_score };
enum class NoiseKind { none, gaussian, learned_gaussian, uniform, jitter };
enum class Granularity { token, segment, sequence, task, architecture };

struct RouterSpec {
  RouterKind kind = RouterKind::token_choice;
  RouterNetwork network = RouterNetwork::linear;
  std::vector<std::int64_t> mlp_widths;     ///< network mlp: widths of the hidden layers
  std::optional<AttentionBlock> attention;  ///< network attention: tokens see each other before they are scored
  std::optional<OwnCostBlock> own_cost;     ///< network own_cost: what computes the scores, the choice apart
  int top_k = 1;
  std::vector<double> top_k_distribution;  ///< probability of k = 1, 2, ...; empty = top_k always
  ScoreFunction score = ScoreFunction::softmax;
  ScoreOrder order = ScoreOrder::score_then_top_k;
  bool renormalise = false;
  double scale = 1.0;           ///< routed scaling factor
  bool selection_bias = false;  ///< added for the choice only (noaux_tc)
  bool linear_bias = false;
  int groups = 1;      ///< group-limited routing: groups of experts ...
  int top_groups = 1;  ///< ... and how many of them a token may use
  NoiseKind noise = NoiseKind::none;
  double noise_strength = 0;
  Granularity granularity = Granularity::token;
  std::int64_t segment_length = 1;
  int coarse_experts = 0;  ///< hierarchical: 0 = flat
  int coarse_top_k = 0;
  friend bool operator==(const RouterSpec&, const RouterSpec&) = default;
};

enum class Overflow { drop, next_best, reroute_random, queue };
enum class CapacityRounding { ceil, floor };

/// How many rows an expert takes. No factor and no absolute value = dropless.
struct CapacitySpec {
  std::optional<double> train_factor;
  std::optional<double> eval_factor;
  std::optional<std::int64_t> absolute;
  std::int64_t minimum = 0;
  bool factor_of_top_k = true;  ///< slots = factor * T * k / E; false: factor * T / E
  bool pad = false;             ///< compute empty slots too (static shapes)
  Overflow overflow = Overflow::drop;
  CapacityRounding rounding = CapacityRounding::ceil;
  [[nodiscard]] bool limited() const { return eval_factor || train_factor || absolute; }
  friend bool operator==(const CapacitySpec&, const CapacitySpec&) = default;
};

struct SharedExperts {
  std::int64_t count = 0;
  ExpertSpec expert;
  bool gate = false;  ///< a sigmoid gate per token (Qwen2-MoE)
  friend bool operator==(const SharedExperts&, const SharedExperts&) = default;
};

struct MoeBlock {
  std::vector<ExpertGroup> experts;
  RouterSpec router;
  CapacitySpec capacity;
  SharedExperts shared;
  std::optional<ExpertSpec> dense_residual;  ///< runs beside the experts (Arctic, gemma-4)
  std::int64_t latent_width = 0;             ///< experts work at this width, 0 = hidden
  std::int64_t zero_experts = 0;             ///< identity experts in the router's choice (LongCat)
  int sub_token_heads = 1;                   ///< MH-MoE: tokens split into this many sub-tokens

  [[nodiscard]] std::int64_t expert_count() const {
    std::int64_t total = 0;
    for (const ExpertGroup& group : experts) total += group.count;
    return total;
  }
  friend bool operator==(const MoeBlock&, const MoeBlock&) = default;
};

}  // namespace moecast
