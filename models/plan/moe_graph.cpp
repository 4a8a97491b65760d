#include <algorithm>
#include <cmath>

#include "models/core/count.h"
#include "models/core/error.h"
#include "models/plan/exact_rows.h"
#include "models/plan/graph_builder.h"
#include "models/plan/token_classes.h"
#include "models/routing/capacity.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

/// What no operator stands for yet; empty when all is there.
std::vector<std::string> not_executed(const MoeBlock& block) {
  std::vector<std::string> what;
  const auto note = [&](bool condition, const char* text) {
    if (condition) what.emplace_back(text);
  };
  const RouterSpec& r = block.router;
  note(r.granularity != Granularity::token, "routing by anything but tokens");
  note(r.kind == RouterKind::hash, "a hash router");
  note(r.kind == RouterKind::architecture, "an architecture router");
  note(r.coarse_experts > 0 && r.top_k % std::max(1, r.coarse_top_k) != 0,
       "a hierarchical router whose coarse experts do not choose alike");
  note(!r.top_k_distribution.empty(), "a distribution of top-k");
  note(block.zero_experts > 0, "zero experts");
  note(block.sub_token_heads > 1 && block.latent_width > 0, "a latent width of sub-tokens");
  note(block.sub_token_heads > 1 && r.attention, "an attention router of sub-tokens");
  note(r.coarse_experts > 0 && r.own_cost, "a hierarchical router of own cost");
  note(splits_by_modality(block) && r.kind != RouterKind::token_choice,
       "a split by modality of experts that tokens do not choose");
  note(block.capacity.overflow == Overflow::reroute_random, "random rerouting of overflow");
  note(block.capacity.overflow == Overflow::queue, "queueing of overflow");
  return what;
}

/// Rows of every group of experts of a block, from the exact histogram or the expectation.
class RowsOfExperts {
 public:
  RowsOfExperts(const MoeBlock& block, const Deployment& deployment, const Workload& workload, std::int64_t tokens)
      : tokens_(tokens), experts_(block.expert_count()), workload_(workload) {
    const auto slots = capacity_slots(block.capacity, tokens, block.router.top_k, experts_);
    if (block.router.kind == RouterKind::soft || deployment.strategy == KernelStrategy::dense_mask) {
      alike(block, value(tokens));
    } else if (block.router.kind == RouterKind::expert_choice) {
      alike(block, slots ? value(*slots) : std::ceil(value(tokens * block.router.top_k) / value(experts_)));
    } else {
      demand(block);
      if (deployment.strategy == KernelStrategy::capacity_padded || block.capacity.pad) {
        alike(block, slots ? value(*slots) : fullest());
      } else if (slots) {
        limit_rows(kinds_, value(*slots), block.capacity.overflow == Overflow::next_best);
      }
    }
  }

  [[nodiscard]] const std::vector<RowGroup>& of_group(std::size_t group) const { return kinds_[group].groups; }

 private:
  /// Every expert computes as many rows.
  void alike(const MoeBlock& block, double rows) {
    kinds_.clear();
    for (const ExpertGroup& group : block.experts) {
      kinds_.push_back({{{rows, value(group.count)}}, value(group.count)});
      if (rows <= 0) kinds_.back().groups.clear();
    }
  }

  void demand(const MoeBlock& block) {
    const auto& exact = workload_.rows_per_expert;
    if (exact.empty()) {
      inclusion_ = mixed_inclusion(block, workload_);
    } else {
      require_rows(exact, experts_, block.router.top_k, tokens_);
    }
    std::int64_t first = 0;
    for (const ExpertGroup& group : block.experts) {
      const auto cut = [&](const auto& all) {
        return std::vector(all.begin() + first, all.begin() + first + group.count);
      };
      kinds_.push_back(
          {exact.empty() ? rows_of_inclusion(cut(inclusion_), tokens_) : group_rows(cut(exact)), value(group.count)});
      first += group.count;
    }
  }

  /// Rows of the fullest expert: exact, or its mean plus two standard deviations in the expectation.
  [[nodiscard]] double fullest() const {
    if (!workload_.rows_per_expert.empty()) {
      return value(*std::max_element(workload_.rows_per_expert.begin(), workload_.rows_per_expert.end()));
    }
    const double p = *std::max_element(inclusion_.begin(), inclusion_.end());
    const double mean = value(tokens_) * p;
    return std::min(value(tokens_), std::ceil(mean + 2 * std::sqrt(mean * (1 - p))));
  }

  std::int64_t tokens_;
  std::int64_t experts_;
  const Workload& workload_;
  std::vector<double> inclusion_;
  std::vector<ExpertRows> kinds_;  ///< one for each group of experts
};

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

void GraphBuilder::choose(const std::string& name, std::int64_t tokens, std::int64_t experts, int top_k, int groups) {
  Operator& scores = add(OperatorKind::router, name, "router");
  scores.shape.tokens = tokens;
  scores.shape.experts = experts;
  scores.shape.top_k = top_k;
  scores.shape.groups = groups;
  scores.input_reuse = Bytes(0);
  scores.activation_bytes = Bytes(4 * value(tokens * experts) + 8 * value(tokens * top_k));
}

void GraphBuilder::hierarchical_scores(const MoeBlock& block, const std::string& name, std::int64_t tokens,
                                       std::int64_t width, const GemmInput& input) {
  const std::int64_t coarse = block.router.coarse_experts;
  const int chosen = block.router.coarse_top_k;
  const std::int64_t fine = block.expert_count() / coarse;
  gemm(name + ".router.coarse", "router", tokens, coarse, width, input);
  choose(name + ".top_k.coarse", tokens, coarse, chosen, 1);
  // Each chosen coarse expert has a router of its own, which only the tokens that chose it pass. They are taken to be
  // chosen alike: popularity is said of the experts below.
  const std::vector<double> alike(static_cast<std::size_t>(coarse), 1.0 / value(coarse));
  grouped_gemm(name + ".router.fine", "router", expected_rows(alike, tokens, chosen), fine, width);
  choose(name + ".top_k.fine", tokens * chosen, fine, block.router.top_k / chosen, 1);
}

void GraphBuilder::route_by_attention(const RouterSpec& router, const std::string& name) {
  if (!router.attention) return;
  const std::size_t begin = graph_.operators.size();
  attention(*router.attention, name + ".router.attention");
  for (std::size_t i = begin; i < graph_.operators.size(); ++i) graph_.operators[i].stage = "router";
}

void GraphBuilder::moe(const MoeBlock& block, const std::string& name) {
  for (const std::string& what : not_executed(block)) refuse(name, what);
  // MH-MoE: a token becomes `heads` narrow ones, each routed by itself, between two projections of the whole token.
  const std::int64_t heads = std::max(1, block.sub_token_heads);
  const std::int64_t hidden = hidden_ / heads;
  const std::int64_t tokens = tokens_ * heads;
  const std::int64_t inner = block.latent_width > 0 ? block.latent_width : hidden;
  const std::int64_t experts = block.expert_count();
  const int top_k = block.router.top_k;
  const auto strategy = deployment_.strategy;
  const bool masked = strategy == KernelStrategy::dense_mask || block.router.kind == RouterKind::soft;
  const bool looped = strategy == KernelStrategy::per_expert_loop;

  if (heads > 1) {
    gemm(name + ".heads_in", "dispatch", tokens_, hidden_, hidden_, block_input());
  }
  const GemmInput routed_input = heads > 1 ? GemmInput(Bytes(0)) : block_input();
  const bool projected = heads > 1 || block.latent_width > 0;  // before the experts
  std::int64_t from = hidden;
  for (const std::int64_t width : block.router.mlp_widths) {
    gemm(name + ".router.hidden", "router", tokens, width, from, from == hidden ? routed_input : GemmInput(Bytes(0)));
    Operator& activation = add(OperatorKind::activation, name + ".router.activation", "router");
    activation.shape.m = tokens;
    activation.shape.width = width;
    activation.input_reuse = Bytes(0);
    activation.activation_bytes = Bytes(value(tokens * width) * (4 + element_));
    from = width;
  }
  route_by_attention(block.router, name);
  const bool scores_given = block.router.own_cost.has_value() || block.router.network == RouterNetwork::none;
  if (block.router.own_cost) {
    own_cost(*block.router.own_cost, name + ".router." + block.router.own_cost->name);
    graph_.operators.back().stage = "router";
  }
  const bool fresh = from == hidden && !block.router.attention;
  const GemmInput scored_input = fresh ? routed_input : GemmInput(Bytes(0));
  if (block.router.coarse_experts > 0) {
    hierarchical_scores(block, name, tokens, from, scored_input);
  } else {
    // Tokens of a modality are scored for the experts that they may choose.
    for (const TokenClass& part :
         splits_by_modality(block) ? token_classes(block, workload_) : std::vector<TokenClass>{{"", 1, {}}}) {
      const std::int64_t scored = part.may_choose.empty() ? experts : part.experts();
      const auto rows = std::max<std::int64_t>(1, std::llround(part.share * value(tokens)));
      const std::string of = part.name.empty() ? "" : "." + part.name;
      if (!scores_given) {
        gemm(name + ".router" + of, "router", rows, scored, from, scored_input);
      }
      choose(name + ".top_k" + of, rows, scored, top_k, block.router.groups);
    }
  }

  if (block.latent_width > 0) gemm(name + ".latent_in", "dispatch", tokens, inner, hidden, std::nullopt);
  // Tensor-parallel ranks hold the same tokens: each sends its part of them.
  const double sent = value(tokens * top_k * inner) * element_ * (deployment_.ep - 1) / deployment_.ep / deployment_.tp;
  if (deployment_.ep > 1) {
    collective(OperatorKind::all_to_all_dispatch, name + ".dispatch", "dispatch", sent);
    graph_.operators.back().reads_block_input = !projected;
  }
  if (deployment_.dp > 1 && deployment_.ep == 1) {
    collective(OperatorKind::all_gather, name + ".dispatch", "dispatch",
               value(tokens * deployment_.dp * inner) * element_);
    graph_.operators.back().reads_block_input = !projected;
  }
  if (!masked) {
    Operator& permute = add(OperatorKind::permute, name + ".permute", "dispatch");
    permute.shape.tokens = tokens;
    permute.shape.top_k = top_k;
    permute.shape.hidden = inner;
    permute.reads_block_input = !projected;
    permute.activation_bytes = Bytes(value(tokens * inner) * (top_k + 1) * element_);
    current_activations_ += value(tokens * inner) * element_;
  }

  // Experts are shared by all data-parallel ranks: they see the tokens of each.
  const RowsOfExperts routed(block, deployment_, workload_, tokens * deployment_.dp);
  const int moe_tp = expert_tensor_ranks(deployment_);
  for (std::size_t g = 0; g < block.experts.size(); ++g) {
    const ExpertGroup& group = block.experts[g];
    ExpertSpec shard = group.expert;
    if (shard.kind == ExpertKind::ffn) shard.width = divide(shard.width, moe_tp, "expert width", "moe_tp");
    std::vector<RowGroup> rows = routed.of_group(g);
    if (deployment_.ep > 1) {
      static_cast<void>(divide(experts, deployment_.ep, "experts", "ep"));
      for (RowGroup& r : rows) r.experts /= deployment_.ep;
    }
    const double resident = expert_sum(rows);
    rows = chunked(std::move(rows), workload_.chunks);
    const double before = current_layer_;
    const std::string suffix = block.experts.size() > 1 ? ".experts" + std::to_string(g) : ".experts";
    ExpertReuse reuse = reuse_of_experts(shard, rows, inner);
    reuse.of_block = !projected;
    expert_layers(shard, name + suffix, "experts", rows, inner, reuse);
    // Chunks read the weights again, they do not store them again.
    if (workload_.chunks > 1 && resident > 0) {
      current_layer_ = before + (current_layer_ - before) * resident / expert_sum(rows);
    }
  }
  const bool gathers =
      deployment_.dp > 1 && deployment_.ep == 1;  // experts are cut, not spread: all ranks see all rows
  if (gathers) {
    collective(OperatorKind::reduce_scatter, name + ".combine", "combine",
               value(tokens * deployment_.dp * inner) * element_);
  }
  if (deployment_.ep > 1) {
    collective(OperatorKind::all_to_all_combine, name + ".combine", "combine", sent);
  }
  Operator& unpermute = add(OperatorKind::unpermute, name + ".unpermute", "combine");
  unpermute.shape.tokens = tokens;
  unpermute.shape.top_k = masked ? experts : top_k;
  const std::int64_t returned = output_width(block.experts.front().expert, inner);
  unpermute.shape.hidden = returned;
  if (looped) unpermute.input_reuse = Bytes(0);
  unpermute.activation_bytes = Bytes(4 * value(tokens * returned) * value(unpermute.shape.top_k + 1));
  current_activations_ += 4 * value(tokens * returned);
  if (block.latent_width > 0) gemm(name + ".latent_out", "combine", tokens, hidden, inner, Bytes(0));
  if (heads > 1) gemm(name + ".heads_out", "combine", tokens_, hidden_, hidden_, Bytes(0));

  for (std::int64_t s = 0; s < block.shared.count; ++s) dense(block.shared.expert, name + ".shared", "shared");
  if (block.dense_residual) dense(*block.dense_residual, name + ".dense_residual", "shared");
  // Ranks that share the width of an expert, or of what runs beside the experts, hold parts of the sum.
  const bool whole = expert_tensor_ranks(deployment_) == 1 && block.shared.count == 0 && !block.dense_residual;
  if (!whole) reduce(name, "combine");
}

}  // namespace moecast
