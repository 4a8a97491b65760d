#include "models/architecture/huggingface/feed_forward.h"

#include <algorithm>

#include "models/architecture/huggingface/placement.h"
#include "models/core/error.h"

namespace moecast::huggingface {
namespace {

constexpr std::int64_t kMaxWidth = 1 << 20;

ExpertSpec ffn_of(Config& config, const Family& family, std::int64_t width) {
  ExpertSpec spec;
  spec.width = width;
  spec.activation = activation_of(config);
  spec.gated = family.gated && spec.activation != Activation::relu_squared;
  spec.bias = config.find_bool({"mlp_bias", "expert_bias"}).value_or(family.ffn_bias);
  return spec;
}

std::optional<std::vector<std::int64_t>> expert_counts(Config& config) {
  return config.find_ints({"num_local_experts", "n_routed_experts", "num_routed_experts", "moe_num_experts",
                           "num_experts", "ffn_config.moe_num_experts", "n_experts"},
                          0, 1 << 16);
}

std::vector<std::int64_t> expert_widths(Config& config) {
  const auto widths = config.find_ints({"moe_intermediate_size", "expert_intermediate_size", "moe_ffn_hidden_size",
                                        "expert_ffn_hidden_size", "expert_ffn_dim", "ffn_config.ffn_hidden_size",
                                        "intermediate_size", "ffn_hidden_size", "encoder_ffn_dim", "d_ff"},
                                       1, kMaxWidth);
  if (widths && !widths->empty()) return *widths;
  throw InputError(config.where(),
                   "\"moe_intermediate_size\" (also expert_intermediate_size, moe_ffn_hidden_size, intermediate_size, "
                   "d_ff, ...) is missing",
                   "without it the experts' size is unknown");
}

std::int64_t of_layer(const std::vector<std::int64_t>& values, std::size_t layer) {
  return values.size() == 1 ? values.front() : values.at(layer);
}

/// A list as long as the model has layers says it layer by layer; a shorter one says it by modality.
std::vector<ExpertGroup> groups_of(Config& config, const Family& family, std::size_t layer, std::size_t layers) {
  const std::vector<std::int64_t> counts = expert_counts(config).value_or(std::vector<std::int64_t>());
  const std::vector<std::int64_t> widths = expert_widths(config);
  const auto by_layer = [&](const auto& list) { return list.size() == 1 || list.size() == layers; };
  if (counts.empty()) throw InputError(config.where(), "the list of experts is empty");
  if (by_layer(counts) && by_layer(widths)) {
    return {{of_layer(counts, layer), ffn_of(config, family, of_layer(widths, layer)), ""}};
  }
  const std::size_t groups = std::max(counts.size(), widths.size());
  if ((counts.size() != groups && counts.size() != 1) || (widths.size() != groups && widths.size() != 1) ||
      groups > 8) {
    throw InputError(config.where(), "lists of experts have " + std::to_string(counts.size()) + " counts and " +
                                         std::to_string(widths.size()) + " widths, which do not belong together");
  }
  std::vector<ExpertGroup> result;
  for (std::size_t i = 0; i < groups; ++i) {
    const std::string modality = i == 0 ? "text" : i == 1 ? "image" : "modality " + std::to_string(i);
    result.push_back({of_layer(counts, i), ffn_of(config, family, of_layer(widths, i)), modality});
  }
  return result;
}

SharedExperts shared_of(Config& config, const Family& family, const MoeBlock& moe, std::size_t layer,
                        std::size_t layers) {
  SharedExperts shared;
  const auto counts = config.find_ints(
      {"n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert", "n_shared_expert"}, 0,
      1 << 16);
  const bool listed = counts && counts->size() > 1;
  if (listed && counts->size() != layers)
    throw InputError(config.where(), "shared experts are listed for other layers");
  shared.count = counts && !counts->empty() ? of_layer(*counts, listed ? layer : 0) : family.shared_experts;
  const auto width = config.find_int({"moe_shared_expert_intermediate_size", "shared_expert_intermediate_size",
                                      "shared_intermediate_size", "share_expert_dim"},
                                     0, kMaxWidth);
  // A width without a count is one shared expert; a width of 0 is none.
  if (width && !counts) shared.count = *width > 0 ? 1 : 0;
  if (width && *width == 0) shared.count = 0;
  shared.gate = config.find({"shared_expert_intermediate_size"}).has_value() && shared.count > 0;
  if (shared.count == 0) return shared;
  shared.expert = moe.experts.front().expert;
  if (width) shared.expert.width = *width;
  return shared;
}

/// A dense network beside the experts of the same layer.
std::optional<ExpertSpec> residual_of(Config& config, const Family& family, std::int64_t hidden) {
  if (config.find_bool({"use_residual"}).value_or(false)) return ffn_of(config, family, hidden);
  if (!config.find_bool({"enable_moe_block"}).value_or(false)) return std::nullopt;
  return ffn_of(config, family, config.need_int({"intermediate_size"}, 1, kMaxWidth));
}

}  // namespace

bool has_experts(Config& config) {
  const auto counts = expert_counts(config);
  if (!config.find_bool({"enable_moe_block"}).value_or(true)) return false;
  return counts && std::any_of(counts->begin(), counts->end(), [](std::int64_t count) { return count > 0; });
}

MoeBlock moe_block(Config& config, const Family& family, std::int64_t hidden, std::size_t layer, std::size_t layers) {
  MoeBlock moe;
  moe.experts = groups_of(config, family, layer, layers);
  moe.router = router_of(config, family, layer, layers);
  moe.capacity = capacity_of(config);
  moe.shared = shared_of(config, family, moe, layer, layers);
  moe.dense_residual = residual_of(config, family, hidden);
  moe.latent_width = config.find_int({"routed_expert_hidden_size", "moe_latent_size"}, 0, kMaxWidth).value_or(0);
  moe.zero_experts = config.find_int({"zero_expert_num"}, 0, 1 << 16).value_or(0);
  return moe;
}

DenseFfnBlock dense_block(Config& config, const Family& family) {
  return {
      ffn_of(config, family,
             config.need_int({"intermediate_size_mlp", "dense_intermediate_size", "intermediate_size",
                              "ffn_hidden_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner"},
                             1, kMaxWidth))};
}

std::vector<Block> feed_forward_blocks(Config& config, const Family& family, std::int64_t hidden, std::size_t layers) {
  std::vector<Block> blocks;
  const bool sparse = has_experts(config);
  const std::vector<bool> moe = sparse ? moe_of_layers(config, layers) : std::vector<bool>(layers, false);
  for (std::size_t i = 0; i < layers; ++i) {
    if (moe[i]) {
      blocks.emplace_back(moe_block(config, family, hidden, i, layers));
    } else {
      blocks.emplace_back(dense_block(config, family));
    }
  }
  static_cast<void>(config.find(
      {"intermediate_size", "dense_intermediate_size", "intermediate_size_mlp"}));  // of no layer, if all have experts
  return blocks;
}

}  // namespace moecast::huggingface
