#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>

#include "sim/predictor.h"

namespace moecast {
namespace {

const Predictor& machine() {
  static const std::unique_ptr<Predictor> loaded =
      Predictor::load(MOECAST_SOURCE_DIR "/hwprofiles/intel-xeon-processor-2cpu");
  return *loaded;
}

std::int64_t up_to_power(int low, int high) {
  return static_cast<std::int64_t>(std::exp2(*rc::gen::inRange(low * 16, high * 16 + 1) / 16.0));
}

AttentionBlock some_attention() {
  AttentionBlock a;
  a.kv_heads = up_to_power(0, 3);
  a.heads = a.kv_heads * up_to_power(0, 2);
  a.head_dim = 32 * *rc::gen::inRange<std::int64_t>(1, 5);
  a.causal = *rc::gen::inRange(0, 3) > 0;
  switch (*rc::gen::inRange(0, 5)) {
    case 0:
      a.kind = AttentionKind::sliding_window;
      a.window = up_to_power(0, 12);
      break;
    case 1:
      a.kind = AttentionKind::chunked;
      a.window = up_to_power(0, 12);
      break;
    case 2:
      a.kind = AttentionKind::latent;
      a.kv_heads = a.heads;
      a.latent = LatentSpec{up_to_power(0, 9), up_to_power(4, 9), 64, 32, 64};
      break;
    case 3: a.kind = AttentionKind::cross; break;
    default: break;
  }
  return a;
}

MoeBlock some_experts() {
  MoeBlock moe;
  ExpertSpec expert;
  expert.width = up_to_power(4, 11);
  moe.experts = {{up_to_power(0, 6), expert, ""}};
  moe.router.top_k = static_cast<int>(std::min<std::int64_t>(moe.expert_count(), up_to_power(0, 3)));
  if (*rc::gen::inRange(0, 2) > 0) moe.capacity.eval_factor = *rc::gen::inRange(1, 400) / 100.0;
  moe.capacity.pad = moe.capacity.eval_factor && *rc::gen::inRange(0, 3) == 0;
  moe.capacity.rounding = *rc::gen::inRange(0, 2) > 0 ? CapacityRounding::ceil : CapacityRounding::floor;
  if (*rc::gen::inRange(0, 2) > 0) moe.capacity.overflow = Overflow::next_best;
  return moe;
}

ExpertLoad some_load(std::int64_t experts, int top_k) {
  ExpertLoad load;
  load.kind = static_cast<LoadKind>(*rc::gen::inRange(0, 6));
  load.parameter = *rc::gen::inRange(1, 300) / 100.0;
  if (load.kind == LoadKind::histogram) {
    for (std::int64_t e = 0; e < experts; ++e) load.histogram.push_back(e < top_k ? 1 : *rc::gen::inRange(0, 5));
  }
  return load;
}

RC_GTEST_PROP(PredictorProperty, NoAnswerIsNegativeInfiniteOrOutsideItsInterval, ()) {
  Architecture a;
  a.name = "some";
  a.hidden = 32 * *rc::gen::inRange<std::int64_t>(1, 65);
  a.vocabulary = 1000;
  a.dtype = DType::fp32;
  const MoeBlock moe = some_experts();
  a.decoder = {{{some_attention(), moe}}};
  Workload w;
  w.phase = *rc::gen::element(Phase::decode, Phase::prefill, Phase::mixed);
  w.batch = up_to_power(0, 6);
  w.prompt = up_to_power(0, 10);
  w.context = *rc::gen::inRange(0, 2) > 0 ? up_to_power(0, 13) : 0;
  w.prefill_batch = w.phase == Phase::mixed ? up_to_power(0, 2) : 0;
  w.load = some_load(moe.expert_count(), moe.router.top_k);
  Deployment d;
  d.threads = *rc::gen::inRange(1, 3);
  d.strategy = static_cast<KernelStrategy>(*rc::gen::inRange(0, 4));
  const Prediction p = machine().predict(a, d, w);
  RC_ASSERT(p.memory.total().value() > 0);
  RC_ASSERT(p.flops.has_value() && p.flops->value() > 0);
  RC_PRE(p.status != Status::does_not_fit);
  RC_ASSERT(p.status == Status::ok);
  RC_ASSERT(std::isfinite(p.latency->value()) && p.latency->value() > 0);
  RC_ASSERT(p.low->value() > 0 && *p.low <= *p.latency && *p.latency <= *p.high && std::isfinite(p.high->value()));
  for (const OperatorCost& op : p.operators) RC_ASSERT(std::isfinite(op.latency.value()) && op.latency.value() >= 0);
  const Factors& f = p.factors;
  for (const Seconds part : {f.all_to_all, f.memory_bandwidth, f.compute, f.routing_overhead}) {
    RC_ASSERT(part.value() >= 0);
  }
}

}  // namespace
}  // namespace moecast
