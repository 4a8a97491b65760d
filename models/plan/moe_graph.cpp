#include <algorithm>
#include <cmath>

#include "models/architecture/accounting.h"
#include "models/core/error.h"
#include "models/plan/graph_builder.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

double value(std::int64_t x) { return static_cast<double>(x); }

void refuse_unsupported(const MoeBlock& block, const std::string& name) {
  const auto refuse = [&](bool condition, const std::string& what) {
    if (condition) throw InputError("", name + ": " + what + " is not supported yet", "it is counted, not executed");
  };
  const RouterSpec& r = block.router;
  refuse(r.granularity != Granularity::token, "routing by anything but tokens");
  refuse(r.kind == RouterKind::hash || r.kind == RouterKind::architecture, "this kind of router");
  refuse(r.network == RouterNetwork::attention, "an attention router");
  refuse(r.coarse_experts > 0, "a hierarchical router");
  refuse(!r.top_k_distribution.empty(), "a distribution of top-k");
  refuse(block.zero_experts > 0, "zero experts");
  refuse(block.sub_token_heads > 1 && block.latent_width > 0, "a latent width of sub-tokens");
  refuse(block.capacity.overflow == Overflow::reroute_random || block.capacity.overflow == Overflow::queue,
         "this overflow policy");
}

/// Rows of the experts [first, first + count) of all, from the exact histogram or the expectation.
class RowsOfExperts {
 public:
  RowsOfExperts(const MoeBlock& block, const Deployment& deployment, const Workload& workload, std::int64_t tokens)
      : strategy_(deployment.strategy), tokens_(tokens), experts_(block.expert_count()), workload_(workload) {
    const auto slots = capacity_slots(block.capacity, tokens, block.router.top_k, experts_);
    if (block.router.kind == RouterKind::soft) {
      fixed_ = value(tokens);
    } else if (block.router.kind == RouterKind::expert_choice) {
      fixed_ =
          slots ? value(std::min(*slots, tokens)) : std::ceil(value(tokens * block.router.top_k) / value(experts_));
    } else if (!workload.rows_per_expert.empty()) {
      exact(block);
    } else {
      inclusion_ = inclusion_probability(expert_popularity(workload.load, experts_), block.router.top_k);
    }
    if (slots) limit_ = value(*slots);
    if (strategy_ == KernelStrategy::dense_mask) fixed_ = value(tokens);
    if (strategy_ == KernelStrategy::capacity_padded || block.capacity.pad) {
      fixed_ = limit_ > 0 ? limit_ : fullest();
    }
  }

  [[nodiscard]] std::vector<RowGroup> rows(std::int64_t first, std::int64_t count) const {
    if (fixed_ > 0) return {{fixed_, value(count)}};
    std::vector<RowGroup> groups;
    if (!workload_.rows_per_expert.empty()) {
      const auto begin = workload_.rows_per_expert.begin() + first;
      groups = group_rows({begin, begin + count});
    } else {
      const auto begin = inclusion_.begin() + first;
      groups = rows_of_inclusion({begin, begin + count}, tokens_);
    }
    if (limit_ > 0) {
      for (RowGroup& group : groups) group.rows = std::min(group.rows, limit_);
    }
    return groups;
  }

 private:
  void exact(const MoeBlock& block) {
    const auto& rows = workload_.rows_per_expert;
    if (value(static_cast<std::int64_t>(rows.size())) != value(experts_)) {
      throw InputError("rows_per_expert",
                       "has " + std::to_string(rows.size()) + " experts, the layer " + std::to_string(experts_),
                       "write one number for each expert");
    }
    std::int64_t sum = 0;
    for (const std::int64_t r : rows) sum += r;
    if (sum > tokens_ * block.router.top_k) {
      throw InputError("rows_per_expert",
                       "has " + std::to_string(sum) + " rows, " + std::to_string(tokens_ * block.router.top_k) +
                           " are routed at most",
                       "the rows of all experts are tokens times top-k, or fewer where some are dropped");
    }
  }
  /// Rows of the fullest expert: exact, or its mean plus two standard deviations in the expectation.
  [[nodiscard]] double fullest() const {
    if (!workload_.rows_per_expert.empty()) {
      return value(*std::max_element(workload_.rows_per_expert.begin(), workload_.rows_per_expert.end()));
    }
    if (inclusion_.empty()) return fixed_;
    const double p = *std::max_element(inclusion_.begin(), inclusion_.end());
    const double mean = value(tokens_) * p;
    return std::min(value(tokens_), std::ceil(mean + 2 * std::sqrt(mean * (1 - p))));
  }

  KernelStrategy strategy_;
  std::int64_t tokens_;
  std::int64_t experts_;
  const Workload& workload_;
  std::vector<double> inclusion_;
  double fixed_ = 0;
  double limit_ = 0;
};

double expert_sum(const std::vector<RowGroup>& rows) {
  double experts = 0;
  for (const RowGroup& group : rows) experts += group.experts;
  return experts;
}

/// Rows of an expert in up to `chunks` equal parts, one after another; each part is a call that reads the weights.
std::vector<RowGroup> chunked(std::vector<RowGroup> rows, std::int64_t chunks) {
  for (RowGroup& group : rows) {
    const double parts = std::clamp(std::floor(group.rows), 1.0, value(std::max<std::int64_t>(1, chunks)));
    group.rows /= parts;
    group.experts *= parts;
  }
  return rows;
}

}  // namespace

std::optional<std::int64_t> capacity_slots(const CapacitySpec& capacity, std::int64_t tokens, int top_k,
                                           std::int64_t experts) {
  if (capacity.absolute) return std::max(*capacity.absolute, capacity.minimum);
  const auto factor = capacity.eval_factor ? capacity.eval_factor : capacity.train_factor;
  if (!factor) return std::nullopt;
  const double exact = *factor * value(tokens) * (capacity.factor_of_top_k ? top_k : 1) / value(experts);
  // 0.5 * 2 * 8 / 8 must be 1 slot, whatever the last bit of the product says.
  const double slots = capacity.rounding == CapacityRounding::ceil ? std::ceil(exact - 1e-9) : std::floor(exact + 1e-9);
  return std::max(static_cast<std::int64_t>(slots), capacity.minimum);
}

ExpertReuse GraphBuilder::reuse_of_experts(const ExpertSpec& spec, const std::vector<RowGroup>& rows,
                                           std::int64_t hidden) const {
  double total = 0;
  double experts = 0;
  for (const RowGroup& group : rows) {
    total += group.rows * group.experts;
    experts += group.experts;
  }
  if (experts == 0) return {};
  const double one = expert_bytes(spec, total / experts, hidden);
  switch (deployment_.strategy) {
    case KernelStrategy::per_expert_loop: return {Bytes(0), true};  // gathered just before
    case KernelStrategy::dense_mask: return {Bytes(one), false};    // all experts read the same rows
    case KernelStrategy::sorted_grouped:
    case KernelStrategy::capacity_padded: break;
  }
  // Permuted first, then used expert by expert: on the average half of both lies in between.
  return {Bytes(0.5 * (total * value(hidden) * element_ + experts * one)), false};
}

void GraphBuilder::moe(const MoeBlock& block, const std::string& name) {
  refuse_unsupported(block, name);
  // MH-MoE: a token becomes `heads` narrow ones, each routed by itself, between two projections of the whole token.
  const std::int64_t heads = std::max(1, block.sub_token_heads);
  const std::int64_t hidden = architecture_.hidden / heads;
  const std::int64_t tokens = tokens_ * heads;
  const std::int64_t inner = block.latent_width > 0 ? block.latent_width : hidden;
  const std::int64_t experts = block.expert_count();
  const int top_k = block.router.top_k;
  const auto strategy = deployment_.strategy;
  const bool masked = strategy == KernelStrategy::dense_mask || block.router.kind == RouterKind::soft;
  const bool looped = strategy == KernelStrategy::per_expert_loop;

  if (heads > 1) {
    gemm(name + ".heads_in", "dispatch", tokens_, architecture_.hidden, architecture_.hidden, block_input());
  }
  const std::optional<Bytes> routed_input = heads > 1 ? std::optional(Bytes(0)) : block_input();
  std::int64_t from = hidden;
  for (const std::int64_t width : block.router.mlp_widths) {
    gemm(name + ".router.hidden", "router", tokens, width, from, from == hidden ? routed_input : Bytes(0));
    from = width;
  }
  if (block.router.network != RouterNetwork::none) {
    gemm(name + ".router", "router", tokens, experts, from, from == hidden ? routed_input : Bytes(0));
  }
  Operator& scores = add(OperatorKind::router, name + ".top_k", "router");
  scores.shape.tokens = tokens;
  scores.shape.experts = experts;
  scores.shape.top_k = top_k;
  scores.shape.groups = block.router.groups;
  scores.input_reuse = Bytes(0);
  scores.activation_bytes = Bytes(4 * value(tokens * experts) + 8 * value(tokens * top_k));

  if (block.latent_width > 0) gemm(name + ".latent_in", "dispatch", tokens, inner, hidden, std::nullopt);
  if (deployment_.ep > 1) {
    collective(OperatorKind::all_to_all_dispatch, name + ".dispatch", "dispatch",
               value(tokens * top_k * inner) * element_ * (deployment_.ep - 1) / deployment_.ep);
  }
  if (!masked) {
    Operator& permute = add(OperatorKind::permute, name + ".permute", "dispatch");
    permute.shape.tokens = tokens;
    permute.shape.top_k = top_k;
    permute.shape.hidden = inner;
    permute.activation_bytes = Bytes(value(tokens * inner) * (top_k + 1) * element_);
    current_activations_ += value(tokens * inner) * element_;
  }

  const RowsOfExperts routed(block, deployment_, workload_, tokens);
  const int moe_tp = deployment_.moe_tp.value_or(std::max(1, deployment_.tp * deployment_.dp / deployment_.ep));
  std::int64_t first = 0;
  for (std::size_t g = 0; g < block.experts.size(); ++g) {
    const ExpertGroup& group = block.experts[g];
    ExpertSpec shard = group.expert;
    if (shard.kind == ExpertKind::ffn) shard.width = divide(shard.width, moe_tp, "expert width", "moe_tp");
    auto rows = routed.rows(first, group.count);
    if (deployment_.ep > 1) {
      static_cast<void>(divide(experts, deployment_.ep, "experts", "ep"));
      for (RowGroup& r : rows) r.experts /= deployment_.ep;
    }
    const double resident = expert_sum(rows);
    rows = chunked(std::move(rows), workload_.chunks);
    const double before = current_layer_;
    const std::string suffix = block.experts.size() > 1 ? ".experts" + std::to_string(g) : ".experts";
    expert_layers(shard, name + suffix, "experts", rows, inner, reuse_of_experts(shard, rows, inner));
    // Chunks read the weights again, they do not store them again.
    if (workload_.chunks > 1 && resident > 0) {
      current_layer_ = before + (current_layer_ - before) * resident / expert_sum(rows);
    }
    first += group.count;
  }
  if (deployment_.ep > 1) {
    collective(OperatorKind::all_to_all_combine, name + ".combine", "combine",
               value(tokens * top_k * inner) * element_ * (deployment_.ep - 1) / deployment_.ep);
  }
  Operator& unpermute = add(OperatorKind::unpermute, name + ".unpermute", "combine");
  unpermute.shape.tokens = tokens;
  unpermute.shape.top_k = masked ? experts : top_k;
  unpermute.shape.hidden = inner;
  if (looped) unpermute.input_reuse = Bytes(0);
  unpermute.activation_bytes = Bytes(4 * value(tokens * inner) * value(unpermute.shape.top_k + 1));
  current_activations_ += 4 * value(tokens * inner);
  if (block.latent_width > 0) gemm(name + ".latent_out", "combine", tokens, hidden, inner, Bytes(0));
  if (heads > 1) gemm(name + ".heads_out", "combine", tokens_, architecture_.hidden, architecture_.hidden, Bytes(0));

  for (std::int64_t s = 0; s < block.shared.count; ++s) dense(block.shared.expert, name + ".shared", "shared");
  if (block.dense_residual) dense(*block.dense_residual, name + ".dense_residual", "shared");
}

}  // namespace moecast
