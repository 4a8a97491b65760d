#pragma once
#include "models/architecture/architecture.h"
#include "models/plan/workload.h"

namespace moecast {

/// A MoE block alone: 8 experts of 3 x 64 x 32, 2 a token, a linear router.
inline Architecture small_moe_layer() {
  MoeBlock moe;
  ExpertSpec expert;
  expert.width = 32;
  moe.experts = {{8, expert, ""}};
  moe.router.top_k = 2;
  Architecture a;
  a.name = "layer";
  a.hidden = 64;
  a.dtype = DType::fp32;
  a.decoder = {{{moe}}};
  return a;
}

/// Three equal layers of attention (4 heads of 16, 2 of keys and values) and the block above, 100 words.
inline Architecture small_moe_model() {
  Architecture a = small_moe_layer();
  a.name = "model";
  a.vocabulary = 100;
  AttentionBlock attention;
  attention.heads = 4;
  attention.kv_heads = 2;
  attention.head_dim = 16;
  a.decoder.assign(3, {{attention, a.decoder.front().blocks.front()}});
  return a;
}

/// One training step of `batch` sequences of `prompt` tokens.
inline Workload training_step(std::int64_t batch, std::int64_t prompt) {
  Workload w;
  w.phase = Phase::train;
  w.batch = batch;
  w.prompt = prompt;
  return w;
}

inline void freeze(Workload& w, ModelPart part) { w.training.frozen[static_cast<std::size_t>(part)] = true; }
inline void freeze_all_but(Workload& w, ModelPart part) {
  w.training.frozen.fill(true);
  w.training.frozen[static_cast<std::size_t>(part)] = false;
}

}  // namespace moecast
