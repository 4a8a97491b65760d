#include "models/architecture/checks.h"

#include <cmath>
#include <numeric>

#include "models/architecture/fields.h"
#include "models/core/error.h"

namespace moecast {
namespace {

/// Collects nothing: the first wrong field throws.
class Checker {
 public:
  Checker(std::string where, std::int64_t hidden) : where_(std::move(where)), hidden_(hidden) {}

  [[nodiscard]] std::int64_t hidden() const { return hidden_; }
  [[nodiscard]] Checker inside(const std::string& field) const { return {pointer(field), hidden_}; }

  void that(bool holds, const std::string& field, const std::string& problem, const std::string& hint = {}) const {
    if (!holds) throw InputError(pointer(field), problem, hint);
  }
  void positive(std::int64_t number, const std::string& field) const {
    that(number > 0, field, "must be at least 1, is " + std::to_string(number));
  }
  void divides(std::int64_t part, std::int64_t whole, const std::string& field, const std::string& of) const {
    that(part > 0 && whole % part == 0, field,
         std::to_string(part) + " does not divide the " + std::to_string(whole) + " " + of);
  }

 private:
  [[nodiscard]] std::string pointer(const std::string& field) const {
    if (where_.empty()) return "/" + field;
    return where_ + (where_.find(": /") == std::string::npos && where_.front() != '/' ? ": /" : "/") + field;
  }
  std::string where_;
  std::int64_t hidden_;
};

void check(const ExpertSpec& expert, const Checker& at) {
  at.positive(expert.depth, "depth");
  if (expert.kind == ExpertKind::identity) return;
  at.positive(expert.width, "width");
  if (expert.kind == ExpertKind::transformer) {
    at.positive(expert.heads, "heads");
    at.positive(expert.head_dim, "head_dim");
  }
  if (expert.kind == ExpertKind::convolution) at.positive(expert.kernel_size, "kernel_size");
}

void check(const AttentionBlock& a, const Checker& at);

void check_router(const RouterSpec& router, std::int64_t experts, const Checker& at) {
  at.positive(router.top_k, "top_k");
  at.that(router.top_k <= experts, "top_k",
          std::to_string(router.top_k) + " experts a token, but there are only " + std::to_string(experts));
  if (!router.top_k_distribution.empty()) {
    const double sum = std::accumulate(router.top_k_distribution.begin(), router.top_k_distribution.end(), 0.0);
    at.that(std::abs(sum - 1) < 1e-6, "top_k_distribution", "adds up to " + std::to_string(sum) + " instead of 1");
    at.that(static_cast<std::int64_t>(router.top_k_distribution.size()) <= experts, "top_k_distribution",
            "gives probabilities for more than the " + std::to_string(experts) + " experts");
  }
  if (router.groups > 1) {
    at.divides(router.groups, experts, "groups", "experts");
    at.that(router.top_groups >= 1 && router.top_groups <= router.groups, "top_groups",
            "must be 1 to " + std::to_string(router.groups) + ", is " + std::to_string(router.top_groups));
    const std::int64_t reachable = router.top_groups * (experts / router.groups);
    at.that(router.top_k <= reachable, "top_groups",
            std::to_string(router.top_groups) + " groups hold " + std::to_string(reachable) +
                " experts, fewer than top_k " + std::to_string(router.top_k));
  }
  at.that(router.network != RouterNetwork::mlp || !router.mlp_widths.empty(), "mlp_widths",
          "is missing: the router's network is an mlp");
  at.that((router.network == RouterNetwork::attention) == router.attention.has_value(), "attention",
          router.attention ? "is given, but the router's network is no attention"
                           : "is missing: the router's network is attention");
  at.that((router.network == RouterNetwork::own_cost) == router.own_cost.has_value(), "own_cost",
          router.own_cost ? "is given, but the router's network is another one"
                          : "is missing: the router's network is of own cost");
  if (router.attention) {
    at.that(router.attention->kind != AttentionKind::cross, "attention", "of a router sees the block's own tokens");
    check(*router.attention, at.inside("attention"));
  }
  if (router.coarse_experts > 0) {
    at.divides(router.coarse_experts, experts, "coarse_experts", "experts");
    at.that(router.coarse_top_k >= 1 && router.coarse_top_k <= router.coarse_experts, "coarse_top_k",
            "must be 1 to " + std::to_string(router.coarse_experts));
  }
}

void check(const MoeBlock& moe, const Checker& at) {
  at.that(!moe.experts.empty(), "experts", "lists no experts");
  for (std::size_t i = 0; i < moe.experts.size(); ++i) {
    const Checker group = at.inside("experts").inside(std::to_string(i));
    group.positive(moe.experts[i].count, "count");
    check(moe.experts[i].expert, group.inside("expert"));
  }
  at.that(moe.expert_count() <= schema::kMaxExperts, "experts", "are more than " + std::to_string(schema::kMaxExperts));
  check_router(moe.router, moe.expert_count() + moe.zero_experts, at.inside("router"));
  if (moe.shared.count > 0) check(moe.shared.expert, at.inside("shared").inside("expert"));
  if (moe.dense_residual) check(*moe.dense_residual, at.inside("dense_residual"));
  if (moe.sub_token_heads > 1) at.divides(moe.sub_token_heads, at.hidden(), "sub_token_heads", "columns of a token");
}

void check(const AttentionBlock& a, const Checker& at) {
  if (a.linear) {
    const Checker linear = at.inside("linear");
    linear.positive(a.linear->key_heads, "key_heads");
    linear.positive(a.linear->value_heads, "value_heads");
    linear.positive(a.linear->key_head_dim, "key_head_dim");
    linear.positive(a.linear->value_head_dim, "value_head_dim");
    return;
  }
  at.positive(a.heads, "heads");
  if (a.latent) {
    const Checker latent = at.inside("latent");
    latent.positive(a.latent->kv_rank, "kv_rank");
    latent.positive(a.latent->value_head_dim, "value_head_dim");
    latent.positive(a.latent->nope_head_dim + a.latent->rope_head_dim, "nope_head_dim");
    return;
  }
  const bool latent = a.kind == AttentionKind::latent || a.kind == AttentionKind::sparse_latent;
  at.that(!latent, "latent", "is missing: the kind of attention needs it");
  const bool linear = a.kind == AttentionKind::gated_delta_net || a.kind == AttentionKind::lightning ||
                      a.kind == AttentionKind::kimi_delta;
  at.that(!linear, "linear", "is missing: the kind of attention needs it");
  at.positive(a.kv_heads, "kv_heads");
  at.positive(a.head_dim, "head_dim");
  at.divides(a.kv_heads, a.heads, "kv_heads", "heads");
}

void check(const DenseFfnBlock& block, const Checker& at) { check(block.ffn, at.inside("ffn")); }

void check(const StateSpaceBlock& block, const Checker& at) {
  at.positive(block.inner_width, "inner_width");
  at.positive(block.state_size, "state_size");
  if (block.version == 2) at.positive(block.heads, "heads");
  if (block.version == 1) at.positive(block.dt_rank, "dt_rank");
}

void check(const RecurrentBlock& block, const Checker& at) { at.positive(block.width, "width"); }

void check(const ConvolutionBlock& block, const Checker& at) {
  at.positive(block.in_channels, "in_channels");
  at.positive(block.out_channels, "out_channels");
  at.divides(block.groups, block.in_channels, "groups", "input channels");
}

void check(const OwnCostBlock&, const Checker&) {}

}  // namespace

void check_block(const Block& block, std::int64_t hidden, const std::string& where) {
  const Checker at(where, hidden);
  std::visit([&](const auto& b) { check(b, at); }, block);
}

void check_architecture(const Architecture& architecture, const std::string& where) {
  const Checker at(where, architecture.hidden);
  at.positive(architecture.hidden, "hidden");
  at.that(!architecture.encoder.empty() || !architecture.decoder.empty(), "decoder", "the model has no layers");
  for (const auto& [name, stack] :
       {std::pair{"encoder", &architecture.encoder}, std::pair{"decoder", &architecture.decoder},
        std::pair{"multi_token_prediction", &architecture.multi_token_prediction}}) {
    const Checker wide(where, stack_hidden(architecture, stack == &architecture.encoder));
    for (std::size_t i = 0; i < stack->size(); ++i) {
      const Checker layer = wide.inside(name).inside(std::to_string(i));
      for (const Block& block : (*stack)[i].blocks) std::visit([&](const auto& b) { check(b, layer); }, block);
    }
  }
}

}  // namespace moecast
