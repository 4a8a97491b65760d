#include "sim/step/context_parallel.h"

#include <algorithm>
#include <string>
#include <utility>

#include "sim/step/collective_cost.h"

namespace moecast {
namespace {

/// Maximum and sum of a softmax in fp32, in elements of activations.
constexpr double kSoftmaxElements = 2 * 4 / kActivationBytes;

class Exchange {
 public:
  Exchange(const Deployment& deployment, const KernelCalibration& calibration, StepOperators& operators)
      : deployment_(deployment), calibration_(calibration), operators_(operators) {}

  /// Tensor-parallel ranks lie inside the group, which spans `span` ranks in a row.
  [[nodiscard]] CollectiveCost cost(std::string_view operation, int ranks, int span) {
    const int node = calibration_.device.node_devices;
    CollectiveCost found = collective_cost(calibration_, operation, ranks, std::min(ranks, (span + node - 1) / node));
    if (found.kernel == "physics") {
      const std::string note = "context parallelism: no measured collective; bytes over the link's bandwidth";
      if (std::ranges::find(operators_.notes, note) == operators_.notes.end()) operators_.notes.push_back(note);
    }
    return found;
  }
  void add(std::string name, std::string kernel, double count, std::function<double(const StepShape&)> seconds) {
    operators_.operators.push_back(
        {std::move(name), std::move(kernel), StepGroup::communication, count, std::move(seconds)});
    operators_.collectives += count;
  }
  /// Of attention.
  void add_shared(std::string name, std::string kernel, double count, std::function<double(const StepShape&)> seconds) {
    add(std::move(name), std::move(kernel), count, std::move(seconds));
    operators_.operators.back().shares_context = true;
  }

 private:
  const Deployment& deployment_;
  const KernelCalibration& calibration_;
  StepOperators& operators_;
};

void add_prompt_exchange(const ContextAttention& layer, const Deployment& deployment, ContextExchange how,
                         Exchange& exchange) {
  const double cp = deployment.cp;
  const int span = deployment.tp * deployment.cp;
  // Tokens whose keys a prompt needs, those of all ranks: its new ones and its prefix (context_share undone).
  const auto keys = [cp](const StepShape& s) { return s.context * cp + s.prefix - s.context * (cp - 1) / 2; };
  if (how == ContextExchange::all_gather) {
    CollectiveCost gather = exchange.cost("all_gather", deployment.cp, span);
    exchange.add_shared("context.all_gather", gather.kernel, layer.count,
                        [=, cost = gather.seconds, cached = layer.cached](const StepShape& s) {
                          return s.prompts > 0 ? cost(keys(s) * cached) : 0.0;
                        });
    return;
  }
  CollectiveCost send = exchange.cost("point_to_point", 2, span);
  exchange.add_shared(
      "context.ring", send.kernel, layer.count,
      [=, cost = send.seconds, cached = layer.cached, attention = layer.prefill_seconds](const StepShape& s) {
        if (s.prompts == 0) return 0.0;
        return (cp - 1) * std::max(0.0, cost(keys(s) / cp * cached) - attention(s) / cp);
      });
}

void add_combine(const ContextAttention& layer, const Deployment& deployment, Exchange& exchange) {
  const int span = deployment.tp * deployment.cp;
  CollectiveCost gather = exchange.cost("all_gather", deployment.cp, span);
  CollectiveCost reduce = exchange.cost("all_reduce", deployment.cp, span);
  exchange.add_shared("context.softmax_all_gather", gather.kernel, layer.count,
                      [cost = gather.seconds, each = layer.heads * kSoftmaxElements * deployment.cp](
                          const StepShape& s) { return s.decodes > 0 ? cost(s.decodes * each) : 0.0; });
  exchange.add_shared("context.all_reduce", reduce.kernel, layer.count,
                      [cost = reduce.seconds, each = layer.outputs](const StepShape& s) {
                        return s.decodes > 0 ? cost(s.decodes * each) : 0.0;
                      });
}

/// Rows of prompts differ on all dp * cp ranks, generating ones on dp ranks only.
void add_expert_exchange(double hidden, double moe_layers, const Deployment& deployment, Exchange& exchange) {
  const int all = deployment.dp * deployment.cp;
  for (const char* operation : {"all_gather", "reduce_scatter"}) {
    const CollectiveCost prompts = exchange.cost(operation, all, stage_ranks(deployment));
    const bool replicas = deployment.dp > 1;
    const CollectiveCost decodes =
        replicas ? exchange.cost(operation, deployment.dp, stage_ranks(deployment)) : CollectiveCost{};
    exchange.add(operation, prompts.kernel, moe_layers,
                 [=, many = prompts.seconds, few = decodes.seconds](const StepShape& s) {
                   if (s.prompts > 0) return many(s.expert_rows * hidden);
                   return replicas ? few(s.expert_rows * hidden) : 0.0;
                 });
  }
  const CollectiveCost reduce = exchange.cost("all_reduce", deployment.cp, deployment.tp * deployment.cp);
  exchange.add("experts.all_reduce", reduce.kernel, moe_layers, [cost = reduce.seconds, hidden](const StepShape& s) {
    return s.prompts > 0 ? 0.0 : cost(s.rows * hidden);
  });
}

}  // namespace

StepShape context_share(const StepShape& all, int cp) {
  if (cp == 1) return all;
  const double ranks = cp;
  StepShape share = all;
  share.decode_kv = all.decode_kv / ranks;
  share.context = all.context / ranks;
  // Of t new tokens and a prefix p, t^2 + 2 t p is twice the pairs: those of a rank's t / cp are 1 / cp of them.
  share.prefix = all.prefix + all.context * (1 - 1 / ranks) / 2;
  return share;
}

void add_context_parallel(const std::vector<ContextAttention>& layers, const Deployment& deployment,
                          const EngineSpec& engine, const KernelCalibration& calibration, StepOperators& operators) {
  Exchange exchange(deployment, calibration, operators);
  for (const ContextAttention& layer : layers) {
    add_prompt_exchange(layer, deployment, engine.context_exchange, exchange);
    add_combine(layer, deployment, exchange);
  }
  if (operators.moe_layers > 0) add_expert_exchange(operators.hidden, operators.moe_layers, deployment, exchange);
}

}  // namespace moecast
