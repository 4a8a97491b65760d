#include <algorithm>
#include <array>
#include <utility>

#include "models/architecture/huggingface/feed_forward.h"
#include "models/core/error.h"

namespace moecast::huggingface {
namespace {

template <class Value>
Value word(const Config& config, const std::string& text, std::string_view field,
           std::initializer_list<std::pair<std::string_view, Value>> known) {
  for (const auto& [name, value] : known) {
    if (name == text) return value;
  }
  throw InputError(config.where(), "\"" + std::string(field) + "\": \"" + text + "\" is not known");
}

ScoreFunction score_of(Config& config, const Family& family) {
  const auto text = config.find_text(
      {"scoring_func", "moe_router_activation_func", "score_function", "score_func", "moe_router_score_function"});
  if (!text) return family.score;
  return word<ScoreFunction>(config, *text, "scoring_func",
                             {{"softmax", ScoreFunction::softmax},
                              {"sigmoid", ScoreFunction::sigmoid},
                              {"sqrtsoftplus", ScoreFunction::sqrt_softplus},
                              {"sqrt_softplus", ScoreFunction::sqrt_softplus}});
}

std::int64_t layer_value(const std::vector<std::int64_t>& values, std::size_t layer, const Config& config) {
  if (values.size() == 1) return values.front();
  if (layer < values.size()) return values[layer];
  throw InputError(config.where(), "a list of expert fields is shorter than the model has layers");
}

}  // namespace

RouterSpec router_of(Config& config, const Family& family, std::size_t layer, std::size_t layers) {
  RouterSpec router;
  // A plain top_k is the sampling parameter of text generation, never the router's.
  const auto k = config.find_ints(
      {"num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_top_k", "moe_k",
       "top_k_experts", "router_topk", "num_selected_experts", "ffn_config.moe_top_k", "num_experts_to_select"},
      1, 1 << 16);
  if (!k || k->empty()) {
    if (family.model_type == "switch_transformers") {
      router.top_k = 1;
    } else if (family.model_type == "nllb-moe") {
      router.top_k = 2;
    } else {
      throw InputError(config.where(),
                       "\"num_experts_per_tok\" (also num_experts_per_token, experts_per_token, moe_topk, moe_k, "
                       "top_k_experts, ...) is missing",
                       "the configuration has experts, so how many a token uses must be known");
    }
  } else {
    router.top_k = static_cast<int>(k->size() == layers ? layer_value(*k, layer, config) : k->front());
  }
  router.score = score_of(config, family);
  router.order = family.order;
  router.renormalise = config.find_bool({"norm_topk_prob", "moe_renormalize", "norm_expert_weight"})
                           .value_or(family.renormalise && family.order == ScoreOrder::score_then_top_k);
  router.scale = config.find_number({"routed_scaling_factor", "moe_router_scaling_factor"}).value_or(1.0);
  const bool noaux = config.find_text({"topk_method"}).value_or("") == "noaux_tc";
  router.selection_bias = noaux || config.find_bool({"use_routing_bias", "use_moe_router_bias", "moe_use_aux_free"})
                                       .value_or(family.selection_bias && !config.find({"topk_method"}));
  router.linear_bias = config.find_bool({"router_bias", "gate_bias"}).value_or(family.router_bias);
  router.groups = static_cast<int>(config.find_int({"n_group", "num_expert_group"}, 0, 1 << 16).value_or(1));
  router.top_groups = static_cast<int>(config.find_int({"topk_group", "num_limited_groups"}, 0, 1 << 16).value_or(1));
  router.groups = std::max(router.groups, 1);
  router.top_groups = std::max(router.top_groups, 1);
  if (router.groups == 1) router.top_groups = 1;
  static_cast<void>(config.find({"use_grouped_topk"}));
  const double jitter = config.find_number({"router_jitter_noise", "moe_jitter_eps", "input_jitter_noise"}).value_or(0);
  if (jitter > 0) {
    router.noise = NoiseKind::jitter;
    router.noise_strength = jitter;
  }
  if (layer < static_cast<std::size_t>(config.find_int({"num_hash_layers"}).value_or(0))) {
    router.kind = RouterKind::hash;
    router.network = RouterNetwork::none;
    router.selection_bias = false;
  }
  return router;
}

CapacitySpec capacity_of(Config& config) {
  CapacitySpec capacity;
  if (const auto factors = config.find({"moe_capacity"}); factors && factors->is_array() && factors->size() >= 2) {
    // Training, evaluation, and inference of one token.
    capacity.train_factor = factors->at(std::size_t{0}).as_number(0, 1e6);
    capacity.eval_factor = factors->at(1).as_number(0, 1e6);
  } else {
    capacity.train_factor =
        config.find_number({"moe_train_capacity_factor", "router_capacity_factor_train", "capacity_factor"}, 0, 1e6);
    capacity.eval_factor = config.find_number(
        {"moe_eval_capacity_factor", "router_capacity_factor_eval", "capacity_factor_eval", "capacity_factor"}, 0, 1e6);
  }
  capacity.absolute = config.find_int({"expert_capacity"});
  capacity.minimum = config.find_int({"router_min_capacity", "moe_min_capacity"}).value_or(0);
  for (std::optional<double>* factor : {&capacity.train_factor, &capacity.eval_factor}) {
    if (*factor && **factor <= 0) factor->reset();
  }
  // Switched off: every token gets its experts.
  const bool drops = config.find_bool({"moe_token_dropping", "router_drop_tokens", "drop_tokens", "moe_dropout_tokens"})
                         .value_or(true);
  return drops ? capacity : CapacitySpec{};
}

Activation activation_of(Config& config) {
  const auto text = config.find_text({"mlp_hidden_act", "hidden_act", "hidden_activation", "activation_function",
                                      "ffn_config.ffn_act_fn.name", "dense_act_fn", "activation"});
  if (!text) return Activation::silu;
  return word<Activation>(config, *text, "hidden_act",
                          {{"silu", Activation::silu},
                           {"swish", Activation::silu},
                           {"swiglu", Activation::silu},
                           {"swigluoai", Activation::silu},
                           {"situ", Activation::silu},
                           {"gelu", Activation::gelu},
                           {"gelu_new", Activation::gelu},
                           {"gelu_fast", Activation::gelu},
                           {"gelu_pytorch_tanh", Activation::gelu},
                           {"quick_gelu", Activation::gelu},
                           {"relu", Activation::relu},
                           {"relu2", Activation::relu_squared}});
}

}  // namespace moecast::huggingface
