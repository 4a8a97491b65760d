#include "models/plan/graph.h"

#include "models/core/error.h"
#include "models/plan/graph_builder.h"
#include "models/plan/training_graph.h"

namespace moecast {
namespace {

/// Equal layers in a row become one that is repeated.
void add_stack(const std::vector<Layer>& stack, const std::string& name, bool transformer, GraphBuilder& builder) {
  for (std::size_t first = 0; first < stack.size();) {
    std::size_t last = first + 1;
    while (last < stack.size() && stack[first] == stack[last]) ++last;
    builder.layer(stack[first], name + std::to_string(first), static_cast<double>(last - first), transformer);
    first = last;
  }
}

}  // namespace

double step_tokens(const Workload& workload) {
  const auto batch = static_cast<double>(workload.batch);
  const auto prompt = static_cast<double>(workload.prompt);
  switch (workload.phase) {
    case Phase::decode: return batch;
    case Phase::mixed: return batch + static_cast<double>(workload.prefill_batch) * prompt;
    case Phase::prefill:
    case Phase::train:
    case Phase::encode: return batch * prompt;
  }
  return batch;
}

OperatorGraph build_graph(const Architecture& architecture, const Deployment& deployment, const Workload& workload) {
  if (workload.phase == Phase::train) return training_graph(architecture, deployment, workload);
  return forward_graph(architecture, deployment, workload);
}

OperatorGraph forward_graph(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                            const StackEnds& ends) {
  const bool trains = workload.phase == Phase::train;
  const bool encodes = workload.phase == Phase::encode || (trains && architecture.decoder.empty());
  const auto& stack = encodes ? architecture.encoder : architecture.decoder;
  if (stack.empty()) {
    throw InputError("phase", architecture.name + " has no " + (encodes ? "encoder" : "decoder") + " layers to run",
                     encodes ? "choose decode, prefill or mixed" : "choose encode");
  }
  if (static_cast<std::size_t>(deployment.pp) > stack.size() && deployment.pp > 1) {
    throw InputError("pp", std::to_string(deployment.pp) + " stages for " + std::to_string(stack.size()) + " layers",
                     "a stage holds one layer at least");
  }
  GraphBuilder builder(architecture, deployment, workload);
  const bool transformer = !is_lone_block(architecture);
  const bool has_words = architecture.vocabulary > 0;
  const bool encodes_first =
      trains || workload.phase == Phase::prefill || (workload.phase == Phase::mixed && workload.prefill_batch > 0);
  if (encodes || (encodes_first && !architecture.encoder.empty())) {
    builder.begin_stack(true);
    if (has_words) builder.embedding();
    add_stack(architecture.encoder, architecture.decoder.empty() ? "layers." : "encoder.", transformer, builder);
  }
  if (!encodes) {
    builder.begin_stack(false);
    if (has_words && ends.embeds) builder.embedding();
    add_stack(architecture.decoder, "layers.", transformer, builder);
    if (has_words && ends.heads) builder.head();
    if (has_words && ends.heads && trains) builder.loss();
  }
  builder.stage_transfers();
  return builder.finish();
}

}  // namespace moecast
