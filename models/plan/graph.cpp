#include "models/plan/graph.h"

#include "models/core/error.h"
#include "models/plan/graph_builder.h"

namespace moecast {
namespace {

bool same_block(const AttentionBlock& a, const AttentionBlock& b) {
  return a.kind == b.kind && a.heads == b.heads && a.kv_heads == b.kv_heads && a.head_dim == b.head_dim &&
         a.window == b.window && a.latent.has_value() == b.latent.has_value() &&
         a.linear.has_value() == b.linear.has_value() && a.indexer.has_value() == b.indexer.has_value();
}

bool same_block(const MoeBlock& a, const MoeBlock& b) {
  if (a.experts.size() != b.experts.size() || a.router.top_k != b.router.top_k) return false;
  for (std::size_t i = 0; i < a.experts.size(); ++i) {
    if (a.experts[i].count != b.experts[i].count || !(a.experts[i].expert == b.experts[i].expert)) return false;
  }
  return a.shared.count == b.shared.count && a.shared.expert == b.shared.expert &&
         a.dense_residual == b.dense_residual && a.latent_width == b.latent_width && a.router.kind == b.router.kind &&
         a.router.groups == b.router.groups && a.router.mlp_widths == b.router.mlp_widths;
}

bool same_block(const DenseFfnBlock& a, const DenseFfnBlock& b) { return a.ffn == b.ffn; }

/// Other kinds are refused later anyway; they are never folded.
template <class Other>
bool same_block(const Other& /*a*/, const Other& /*b*/) {
  return false;
}

bool same_layer(const Layer& a, const Layer& b) {
  if (a.blocks.size() != b.blocks.size()) return false;
  for (std::size_t i = 0; i < a.blocks.size(); ++i) {
    const bool same = std::visit(
        [&](const auto& block) {
          using Kind = std::decay_t<decltype(block)>;
          const auto* other = std::get_if<Kind>(&b.blocks[i]);
          return other != nullptr && same_block(block, *other);
        },
        a.blocks[i]);
    if (!same) return false;
  }
  return true;
}

}  // namespace

double step_tokens(const Workload& workload) {
  const auto batch = static_cast<double>(workload.batch);
  const auto prompt = static_cast<double>(workload.prompt);
  switch (workload.phase) {
    case Phase::decode: return batch;
    case Phase::mixed: return batch + static_cast<double>(workload.prefill_batch) * prompt;
    case Phase::prefill:
    case Phase::encode: return batch * prompt;
  }
  return batch;
}

OperatorGraph build_graph(const Architecture& architecture, const Deployment& deployment, const Workload& workload) {
  const bool encodes = workload.phase == Phase::encode;
  const auto& stack = encodes ? architecture.encoder : architecture.decoder;
  if (stack.empty()) {
    throw InputError("", architecture.name + " has no " + (encodes ? "encoder" : "decoder") + " layers to run");
  }
  GraphBuilder builder(architecture, deployment, workload);
  const bool transformer = !is_lone_block(architecture);
  if (architecture.vocabulary > 0) builder.embedding();
  for (std::size_t first = 0; first < stack.size();) {
    std::size_t last = first + 1;
    while (last < stack.size() && same_layer(stack[first], stack[last])) ++last;
    builder.layer(stack[first], "layers." + std::to_string(first), static_cast<double>(last - first), transformer);
    first = last;
  }
  if (architecture.vocabulary > 0 && !encodes) builder.head();
  return builder.finish();
}

}  // namespace moecast
