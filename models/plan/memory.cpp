#include "models/plan/memory.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "models/architecture/accounting.h"
#include "models/core/count.h"
#include "models/core/error.h"
#include "models/plan/graph.h"
#include "models/plan/offload.h"
#include "models/plan/speculation.h"
#include "models/plan/stages.h"
#include "models/plan/training_memory.h"
#include "models/plan/training_stage.h"

namespace moecast {
namespace {

/// Of an element of the embedding and the head in a quantised checkpoint: bf16.
constexpr double kWordBytes = 2;

void require_divides(std::int64_t what, int ranks, const std::string& name, const std::string& degree) {
  if (ranks < 1 || what % ranks != 0) {
    throw InputError(degree, std::to_string(ranks) + " ranks do not divide " + name + " = " + std::to_string(what),
                     "choose a degree that divides it");
  }
}

/// Places beside those of the resident experts: one is computed, one is on its way.
constexpr double kExpertsInFlight = 2;

/// Part of a rank's experts of a layer that it holds.
double resident_share(const MoeBlock& moe, const Deployment& d) {
  if (!d.offload || !d.offload->resident) return 1;
  return std::min(1.0, value(*d.offload->resident) * d.ep / value(moe.expert_count()));
}

/// Weights of attention on a tensor-parallel rank: a KV head is the least that can be split off; projections into low
/// rank and the indexer are on every rank.
double attention_weights(const AttentionBlock& block, std::int64_t hidden, double all, int tp) {
  double whole = 0;
  std::int64_t low_rank = 0;
  if (block.latent) {
    low_rank = block.latent->q_rank;
    whole = value(hidden * (low_rank + block.latent->kv_rank + block.latent->rope_head_dim));
  } else if (block.kv_heads > 0 && block.kv_heads < tp && !block.linear) {
    const std::int64_t value_size = block.value_head_dim > 0 ? block.value_head_dim : block.head_dim;
    const double head = value(hidden * (block.head_dim + (block.shared_kv ? 0 : value_size)));
    return head + (all - head * value(block.kv_heads)) / tp;
  }
  if (block.indexer) {
    const IndexerSpec& index = *block.indexer;
    const std::int64_t from = low_rank > 0 ? low_rank : hidden;
    whole += value(index.heads * index.head_dim * from + (index.head_dim + index.heads) * hidden);
  }
  return std::min(all, whole + (all - whole) / tp);
}

/// Weight bytes of one block on a rank.
double block_weights(const Block& block, const Architecture& a, std::int64_t hidden, const Deployment& d) {
  const double weight = bytes_per_weight(d.dtype.value_or(a.dtype));
  const ParameterCount count = block_parameters(block, hidden, stack_hidden(a, true));
  if (const auto* moe = std::get_if<MoeBlock>(&block)) {
    require_divides(moe->expert_count() + d.redundant_experts, d.ep, "experts", "ep");
    const double expert_weight = a.expert_dtype && !d.dtype ? bytes_per_weight(*a.expert_dtype) : weight;
    const double replicated = router_parameters(moe->router, moe->expert_count() + moe->zero_experts, hidden);
    const double shared = count.total - count.routed_experts - replicated;
    const double copies = 1 + d.redundant_experts / value(std::max<std::int64_t>(1, moe->expert_count()));
    return count.routed_experts * copies / (d.ep * expert_tensor_ranks(d)) * resident_share(*moe, d) * expert_weight +
           (shared / d.tp + replicated) * weight;
  }
  if (const auto* attention = std::get_if<AttentionBlock>(&block)) {
    require_divides(attention->heads, d.tp, "heads", "tp");
    return attention_weights(*attention, hidden, count.total, d.tp) * weight;
  }
  return count.total / d.tp * weight;
}

/// Cache of all sequences of a rank in one block of a decoder. Encoders keep nothing: all their tokens come at once.
double block_cache(const Block& block, const Architecture& a, const Deployment& d, const Workload& w) {
  if (const auto* moe = std::get_if<MoeBlock>(&block)) {
    return moe->router.attention ? block_cache(*moe->router.attention, a, d, w) : 0;
  }
  const DType dtype = cache_dtype(a, d);
  const double sequences = std::ceil(value(w.batch + w.prefill_batch) / d.dp);
  const double state = state_bytes_per_sequence(block, dtype).value() / d.tp;
  const auto* attention = std::get_if<AttentionBlock>(&block);
  if (attention == nullptr || attention->linear) return sequences * state;
  const bool crosses = attention->kind == AttentionKind::cross;
  const auto blocks = [&](std::int64_t entries) {
    std::int64_t kept = crosses ? source_tokens(w) * attention->source_layers : kept_tokens(*attention, entries);
    kept = (kept + d.cp - 1) / d.cp;  // context-parallel ranks take turns in keeping tokens
    return std::ceil(value(kept) / value(std::max<std::int64_t>(1, d.kv_block_tokens)));
  };
  const bool mixed = w.phase == Phase::mixed;
  const double prompts = mixed ? std::ceil(value(w.prefill_batch) / d.dp) : w.phase == Phase::decode ? 0 : sequences;
  const double held = (sequences - prompts) * blocks(w.context + 1) + prompts * blocks(prefix_tokens(w) + w.prompt);
  // The latent row is on every rank; a KV head is the least that can be split off.
  const double split =
      attention->latent ? 1 : std::min<double>(d.tp, value(std::max<std::int64_t>(1, attention->kv_heads)));
  return held * value(d.kv_block_tokens) * kv_bytes_per_token(*attention, dtype).value() / split;
}

/// Layers of a stack that a stage holds. A stack of fewer layers than stages lies on the first stage as a whole.
StageLayers held_layers(const std::vector<Layer>& stack, const Deployment& d, std::size_t stage) {
  if (stack.size() >= static_cast<std::size_t>(d.pp)) {
    return stage_layers(stack.size(), d.pp, d.extra_layers)[stage];
  }
  return stage == 0 ? StageLayers{0, stack.size()} : StageLayers{};
}

/// Tokens of the largest micro-batch of a rank.
double tokens_at_once(const Deployment& d, const Workload& w) {
  const std::int64_t sequences = (w.batch + w.prefill_batch + d.dp - 1) / d.dp;
  const double checked = w.phase == Phase::decode || w.phase == Phase::mixed ? value(w.batch) * d.draft_tokens : 0;
  const double tokens = std::ceil((step_tokens(w) + checked) / d.dp);
  return d.pp == 1 || w.phase == Phase::train ? tokens : std::ceil(tokens / value(micro_batches_of(d, sequences)));
}

MemoryBreakdown memory_of_stage(const Architecture& a, const Deployment& d, const Workload& w, std::size_t stage) {
  const double weight = bytes_per_weight(d.dtype.value_or(a.dtype));
  const double element = bytes_per_element(d.dtype.value_or(a.dtype));
  const double all_tokens = tokens_at_once(d, w);
  const double tokens = w.phase == Phase::decode ? all_tokens : std::ceil(all_tokens / d.cp);
  double weights = 0;
  double cache = 0;
  double widest = 0;
  double workspace = 0;
  double in_flight = 0;
  static const std::vector<Layer> kNone;
  const std::vector<Layer>& drafts = d.draft_tokens > 0 ? a.multi_token_prediction : kNone;
  for (const auto* stack : {&a.encoder, &a.decoder, &drafts}) {
    const double hidden = value(stack_hidden(a, stack == &a.encoder));
    const StageLayers held = held_layers(*stack, d, stage);
    for (std::size_t i = held.first; i < held.first + held.count; ++i) {
      for (const Block& block : (*stack)[i].blocks) {
        weights += block_weights(block, a, stack_hidden(a, stack == &a.encoder), d) + hidden * weight;
        if (stack != &a.encoder && w.phase != Phase::train) cache += block_cache(block, a, d, w);
        double width = hidden;
        if (const auto* f = std::get_if<DenseFfnBlock>(&block))
          width = value(f->ffn.width) * (f->ffn.gated ? 2 : 1) / d.tp;
        if (const auto* b = std::get_if<AttentionBlock>(&block)) {
          width = value((b->heads + 2 * b->kv_heads) * b->head_dim) / d.tp;
        }
        widest = std::max(widest, width);
        if (const auto* m = std::get_if<MoeBlock>(&block)) {
          const double rows = tokens * mean_top_k(m->router);
          double expert = 0;
          for (const ExpertGroup& g : m->experts) {
            expert = std::max(expert, value(g.expert.width) * (g.expert.gated ? 2 : 1));
          }
          // Permuted rows, results of all experts, and one chunk of rows inside an expert.
          const double inside = std::ceil(rows / std::max<double>(1, static_cast<double>(w.chunks)));
          workspace = std::max(
              workspace, rows * hidden * (element + 4) + inside * expert * 4 + tokens * value(m->expert_count()) * 4);
          if (resident_share(*m, d) < 1) {
            const Bytes one = expert_weight_bytes(*m, a, stack_hidden(a, stack == &a.encoder), d);
            in_flight = std::max(in_flight, kExpertsInFlight * one.value());
          }
        }
      }
    }
  }
  const double hidden = value(std::max(a.hidden, a.encoder_hidden));
  const bool first = stage == 0;
  const bool last = stage + 1 == static_cast<std::size_t>(d.pp);
  // Tied embeddings lie on both ends of a pipeline.
  double widths = 0;
  if (first) widths += value(a.hidden);
  if (last && (!a.tied_embeddings || !first)) widths += value(a.hidden);
  if (first && !a.encoder.empty() && stack_hidden(a, true) != a.hidden) widths += value(a.encoder_hidden);
  // Quantised checkpoints keep the embedding and the head in the format of activations.
  const double words = w.phase == Phase::train ? weight : std::max(weight, kWordBytes);
  weights += value(a.vocabulary) * widths * words / d.tp;
  // Each module joins a hidden row and an embedding.
  if (!drafts.empty()) weights += value(draft_modules(a)) * 2 * value(a.hidden) * (value(a.hidden) + 1) * weight;
  if (first) weights += (a.other_parameters + a.position_embedding_parameters) * weight;
  MemoryBreakdown memory;
  memory.weights = Bytes(weights);
  memory.kv_cache = Bytes(cache);
  memory.activations = Bytes(tokens * (2 * hidden + widest) * element);
  memory.workspace = Bytes(workspace + in_flight);
  return memory;
}

void add_training(const Architecture& a, const Deployment& d, const Workload& w, std::size_t stage,
                  MemoryBreakdown& memory) {
  TrainingMemory training;
  if (d.pp == 1) {
    training = training_memory(a, d, w);
  } else {
    const StageOfTraining one = training_stage(a, d, w, stage);
    training = training_memory(one.architecture, one.deployment, one.workload, one.ends);
    training.saved_activations *= micro_batches_kept(d, w.training, stage);
  }
  memory.gradients = training.gradients;
  memory.optimizer_states = training.optimizer_states;
  memory.saved_activations = training.saved_activations;
  memory.weights -= training.weights_elsewhere;
  memory.workspace += training.gathered;
}

}  // namespace

DType cache_dtype(const Architecture& architecture, const Deployment& deployment) {
  if (deployment.kv_dtype) return *deployment.kv_dtype;
  if (architecture.kv_dtype) return *architecture.kv_dtype;
  const DType weights = deployment.dtype.value_or(architecture.dtype);
  return bytes_per_element(weights) < 2 ? DType::bf16 : weights;
}

MemoryBreakdown memory_per_rank(const Architecture& a, const Deployment& d, const Workload& asked) {
  for (const int degree : {d.tp, d.ep, d.dp, d.pp, d.cp}) {
    if (degree < 1) throw InputError("", "a degree of parallelism must be at least 1");
  }
  if (const std::size_t layers = std::max(a.encoder.size(), a.decoder.size()); layers > 0) {
    static_cast<void>(stage_layers(layers, d.pp, d.extra_layers));
  }
  const bool trains = asked.phase == Phase::train;
  Workload w = asked;
  if (trains) w.batch = micro_batch(asked, d);
  MemoryBreakdown fullest;
  for (std::size_t stage = 0; stage < static_cast<std::size_t>(d.pp); ++stage) {
    MemoryBreakdown memory = memory_of_stage(a, d, w, stage);
    if (trains) add_training(a, d, asked, stage, memory);
    if (stage == 0 || memory.total() > fullest.total()) fullest = memory;
  }
  return fullest;
}

}  // namespace moecast
