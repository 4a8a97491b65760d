#include "sim/step/attention_operators.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "models/architecture/accounting.h"
#include "models/core/count.h"
#include "models/plan/memory.h"
#include "sim/step/attention_view.h"
#include "sim/step/collective_cost.h"
#include "sim/step/kernel_doubt.h"

namespace moecast {
namespace {

/// Of 53,649 decode and 41,410 prompt rows of grouped-query attention, H100 to B300 (tools/dev/usual_efficiencies.py).
constexpr UsualEfficiency kDecodeUsual{0.7, 0.5, 10e-6, 0.90};
constexpr UsualEfficiency kPrompts{0.5, 0.4, 15e-6, 0.72};
/// Sequences and keys at which a core is asked how well it is known.
constexpr double kUsualBatch = 8;
constexpr double kUsualKeys = 2048;
/// Latent attention: measured services of DeepSeek were judged with it, their spread is in the engine's interval.
constexpr UsualEfficiency kLatentUsual{0.7, 0.5, 10e-6, 0};
/// Scores of an indexer and the choice among them: fp32, written and read again.
constexpr double kScoreBytes = 4;

class Attention {
 public:
  Attention(const AttentionBlock& block, double count, OperatorMaker& maker)
      : block_(block), count_(count), maker_(maker), heads_(maker.of_rank(block.heads, "heads")) {}

  void grouped_query() {
    const std::int64_t cached = kv_heads_ * (block_.head_dim + (block_.shared_kv ? 0 : value_dim_));
    const std::int64_t queries = heads_ * block_.head_dim * (block_.output_gate ? 2 : 1);
    if (block_.q_rank > 0) {
      gemm("qkv_a", block_.q_rank + cached, hidden());
      gemm("q_b", queries, block_.q_rank);
    } else {
      gemm("qkv", queries + cached, hidden());
    }
    if (block_.indexer) indexer(block_.q_rank);
    const bool plain = !block_.indexer && block_.kv_compression == 1;
    for (const bool prefill : {false, true}) {
      if (plain) {
        table_core("attention", cached, prefill);
      } else {
        physics_core(prefill, elements(cached), 2 * value(heads_ * (block_.head_dim + value_dim_)), usual(prefill));
      }
    }
    output(heads_ * value_dim_);
    share_context(cached, value_dim_);
  }

  /// Queries of the decoder, keys and values of what the encoder returned: projected when it is new.
  void cross() {
    if (maker_.deployment.cp > 1) return maker_.refuse("context parallelism of cross attention");
    const std::int64_t cached = kv_heads_ * (block_.head_dim + value_dim_);
    maker_.add_gemm("cross.q", StepGroup::gemm, heads_ * block_.head_dim, hidden(), count_);
    maker_.add_gemm("cross.kv", StepGroup::gemm, cached, stack_hidden(maker_.architecture, true),
                    count_ * value(std::max<std::int64_t>(1, block_.source_layers)), StepRows::encoded);
    maker_.add_gemm("cross.out", StepGroup::gemm, hidden(), heads_ * value_dim_, count_);
    for (const bool prefill : {false, true}) table_core("cross", cached, prefill);
  }

  /// Keys and values of all heads out of one cached row. Dense prompts expand it; a step that generates and sparse
  /// attention keep it and move the expansion into query and result (absorbed form).
  void latent() {
    const LatentSpec& l = *block_.latent;
    const std::int64_t query = l.nope_head_dim + l.rope_head_dim;
    const std::int64_t cached = l.kv_rank + l.rope_head_dim;
    if (l.q_rank > 0) {
      gemm("qkv_a", l.q_rank + cached, hidden());
      gemm("q_b", heads_ * query, l.q_rank);
    } else {
      gemm("q", heads_ * query + cached, hidden());
    }
    if (block_.output_gate) gemm("gate", heads_ * l.value_head_dim, hidden());
    output(heads_ * l.value_head_dim);
    const double absorbed = value(heads_ * l.kv_rank) * value(l.nope_head_dim + l.value_head_dim);
    // Rows that are expanded: new ones, and what dense prompts find cached.
    const auto expanded = [sparse = block_.indexer.has_value()](const StepShape& shape) {
      return shape.rows + (sparse || shape.prompts == 0 ? 0 : shape.prefix);
    };
    maker_.add_physics("attention.absorbed", StepGroup::gemm, count_, kLatentUsual,
                       [absorbed, expanded, row = value(heads_ * (query + l.kv_rank))](const StepShape& shape) {
                         const double rows = expanded(shape);
                         return StepWork{kActivationBytes * (absorbed + rows * row), 2 * rows * absorbed};
                       });
    const double kept = 2 * value(heads_ * (cached + l.kv_rank));
    const AttentionElements absorbing{cached, cache_bytes_, heads_ * (cached + l.kv_rank)};
    if (block_.indexer) {
      indexer(l.q_rank);
      for (const bool prefill : {false, true}) physics_core(prefill, absorbing, kept, usual(prefill));
      return;
    }
    maker_.note("latent attention: physics; its tables are bound by the host at the lengths that decode asks for");
    physics_core(false, absorbing, kept, kLatentUsual);
    physics_core(true, {cached, cache_bytes_, heads_ * (query + l.value_head_dim)},
                 2 * value(heads_ * (query + l.value_head_dim)), kLatentUsual);
    share_context(cached, l.kv_rank);
  }

 private:
  [[nodiscard]] std::int64_t hidden() const { return maker_.architecture.hidden; }

  [[nodiscard]] bool limited() const { return block_.window > 0 || block_.indexer || block_.kv_compression > 1; }

  static const UsualEfficiency& usual(bool prefill) { return prefill ? kPrompts : kDecodeUsual; }

  void gemm(const std::string& name, std::int64_t n, std::int64_t k) {
    maker_.add_gemm("attention." + name, StepGroup::gemm, n, k, count_);
  }

  /// From so many columns of a rank, in groups of heads through a low rank where the block has one.
  void output(std::int64_t columns) {
    if (block_.out_rank == 0) return gemm("out", hidden(), columns);
    const std::int64_t groups = maker_.of_rank(block_.out_groups, "output groups");
    maker_.add_gemm("attention.out_a", StepGroup::gemm, block_.out_rank, columns / groups, count_ * value(groups));
    gemm("out_b", hidden(), groups * block_.out_rank);
  }

  [[nodiscard]] AttentionElements elements(std::int64_t cached) const {
    return {cached, cache_bytes_, heads_ * (block_.head_dim + value_dim_)};
  }

  void physics_core(bool prefill, const AttentionElements& elements, double flops, const UsualEfficiency& usual) {
    maker_.add_physics(prefill ? "attention.prefill" : "attention.decode", StepGroup::attention, count_, usual,
                       attention_work({block_, prefill}, elements, flops));
    maker_.result.operators.back().limited = limited();
  }

  /// Grouped-query attention, where the profile holds a kernel of it.
  void table_core(const std::string& prefix, std::int64_t cached, bool prefill) {
    const KernelLayout& layout = *find_kernel_layout(prefill ? "context_attention" : "generation_attention");
    KernelRowValues row(layout);
    // Guesses that are checked share the cache of their sequence, as further heads would.
    const double queries = prefill ? 1 : 1 + maker_.deployment.draft_tokens;
    row.set("batch_size", 1).set("isl", 1).set("num_heads", value(heads_) * queries);
    row.set("num_key_value_heads", value(kv_heads_)).set("head_dim", value(block_.head_dim));
    row.set("window_size", value(block_.kind == AttentionKind::chunked ? 0 : block_.window));
    std::vector<std::string> formats{"bfloat16+bfloat16", "bfloat16+fp8"};
    if (cache_bytes_ <= 1) std::ranges::reverse(formats);
    const ReadyKernel kernel = maker_.find(layout.name, "", formats, row);
    const AttentionView view{block_, prefill};
    const auto work = attention_work(view, elements(cached), 2 * value(heads_ * (block_.head_dim + value_dim_)));
    const std::string name = prefix + (prefill ? ".prefill" : ".decode");
    if (kernel) {
      maker_.add(name, kernel->described(), StepGroup::attention, count_, attention_seconds(kernel, row, layout, view))
          .work = work;
      KernelRowValues usual = row;
      usual.set("batch_size", kUsualBatch).set(prefill ? "isl" : "step", kUsualKeys);
      doubt_far_kernel(*kernel, usual, maker_.result.operators.back(), maker_.result.notes);
    } else {
      maker_.add_physics(name, StepGroup::attention, count_, usual(prefill), work);
    }
    maker_.result.operators.back().limited = limited();
  }

  /// Few cheap heads score all keys, the best are attended to. Every tensor-parallel rank does all of it.
  void indexer(std::int64_t rank) {
    const IndexerSpec& index = *block_.indexer;
    gemm("indexer.q", index.heads * index.head_dim, rank > 0 ? rank : hidden());
    gemm("indexer.k", index.head_dim + index.heads, hidden());
    AttentionBlock all;
    all.causal = block_.causal;
    all.kv_compression = block_.kv_compression;
    for (const bool prefill : {false, true}) {
      const std::string name = prefill ? ".prefill" : ".decode";
      const AttentionView view{all, prefill};
      const auto sequences = [prefill](const StepShape& shape) { return prefill ? shape.prompts : shape.decodes; };
      maker_.add_physics("attention.indexer.scores" + name, StepGroup::attention, count_, usual(prefill),
                         [keys = attention_work(view, {index.head_dim, cache_bytes_, index.heads * index.head_dim},
                                                2 * value(index.heads * index.head_dim)),
                          view, sequences](const StepShape& shape) {
                           if (sequences(shape) == 0) return StepWork{};
                           StepWork work = keys(shape);
                           work.bytes += kScoreBytes * sequences(shape) * pairs_of(shape, view);
                           return work;
                         });
      maker_.add_physics("attention.indexer.choice" + name, StepGroup::attention, count_, usual(prefill),
                         [view, sequences](const StepShape& shape) {
                           if (sequences(shape) == 0) return StepWork{};
                           return StepWork{kScoreBytes * sequences(shape) * pairs_of(shape, view), 0};
                         });
    }
  }

  /// After the prompts' core has been added: what context-parallel ranks exchange in such layers.
  void share_context(std::int64_t cached, std::int64_t value_dim) {
    if (maker_.deployment.cp == 1) return;
    const auto core = std::ranges::find(maker_.result.operators.rbegin(), maker_.result.operators.rend(),
                                        "attention.prefill", &StepOperator::name);
    maker_.context_attention.push_back(
        {count_, value(cached), value(heads_ * value_dim), value(heads_), core->seconds});
  }

  const AttentionBlock& block_;
  double count_;
  OperatorMaker& maker_;
  std::int64_t heads_;  ///< of a rank
  double cache_bytes_ = bytes_per_element(cache_dtype(maker_.architecture, maker_.deployment));
  std::int64_t kv_heads_ = std::max<std::int64_t>(1, block_.kv_heads / maker_.deployment.tp);
  std::int64_t value_dim_ = block_.value_head_dim > 0 ? block_.value_head_dim : block_.head_dim;
};

}  // namespace

void add_softmax_attention(const AttentionBlock& block, double count, OperatorMaker& maker) {
  if (maker.deployment.cp > 1 && (block.window > 0 || block.indexer || block.kv_compression > 1)) {
    return maker.refuse("context parallelism of windowed, chunked, compressed or sparse attention");
  }
  Attention attention(block, count, maker);
  if (block.kind == AttentionKind::cross) return attention.cross();
  if (block.latent) return attention.latent();
  attention.grouped_query();
}

}  // namespace moecast
