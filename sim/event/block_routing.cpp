#include "sim/event/block_routing.h"

#include <algorithm>

#include "models/core/error.h"

namespace moecast {

std::string unsupported(const MoeBlock& block) {
  const RouterSpec& router = block.router;
  if (block.experts.size() != 1) return "experts that differ within a layer";
  const ExpertSpec& expert = block.experts.front().expert;
  if (expert.kind != ExpertKind::ffn || expert.depth != 1)
    return "experts that are no feed-forward network of two steps";
  if (block.zero_experts > 0) return "zero experts";
  if (block.sub_token_heads > 1) return "sub-tokens";
  if (router.kind == RouterKind::architecture) return "an architecture router";
  if (router.granularity != Granularity::token && router.granularity != Granularity::segment &&
      router.granularity != Granularity::sequence) {
    return "routing by anything but tokens, segments and sequences";
  }
  if (router.network == RouterNetwork::attention) return "an attention router";
  if (block.capacity.overflow == Overflow::reroute_random) return "random rerouting of overflow";
  // Samples are steps by themselves: nothing would ever come back.
  if (block.capacity.overflow == Overflow::queue && block.capacity.limited()) {
    return "a queue of overflow for later steps (moecast routing --steps follows one)";
  }
  return {};
}

namespace {

/// Consecutive tokens of a step that are routed as one.
int tokens_per_decision(const RouterSpec& router, const Workload& workload, const std::string& name) {
  if (router.granularity == Granularity::segment) return static_cast<int>(router.segment_length);
  if (router.granularity != Granularity::sequence || workload.phase == Phase::decode) return 1;
  if (workload.phase == Phase::mixed) {
    throw InputError(name, "routes whole sequences; a mixed step holds sequences of different lengths",
                     "--phase prefill or decode");
  }
  return static_cast<int>(workload.prompt);
}

}  // namespace

CapacityOverflow overflow_of(const CapacitySpec& capacity) {
  switch (capacity.overflow) {
    case Overflow::next_best: return CapacityOverflow::next_best;
    case Overflow::queue: return CapacityOverflow::queue;
    default: return capacity.pad ? CapacityOverflow::pad : CapacityOverflow::drop;
  }
}

void add_noise_note(const MoeBlock& block, std::vector<std::string>& notes) {
  if (block.router.noise == NoiseKind::none) return;
  const std::string text = "the router's noise is of training: routings are drawn without it";
  if (std::ranges::find(notes, text) == notes.end()) notes.push_back(text);
}

RoutingPolicy policy_of(const MoeBlock& block, const Workload& workload, const std::string& name) {
  const RouterSpec& router = block.router;
  RoutingPolicy policy;
  policy.top_k = router.top_k;
  switch (router.kind) {
    case RouterKind::expert_choice: policy.kind = RoutingPolicyKind::expert_choice; break;
    case RouterKind::hash: policy.kind = RoutingPolicyKind::hash; break;
    case RouterKind::soft: policy.kind = RoutingPolicyKind::dense; break;
    default: break;
  }
  if (router.coarse_experts > 0) {
    policy.kind = RoutingPolicyKind::hierarchical;
    policy.groups = router.coarse_experts;
    policy.groups_kept = std::max(1, router.coarse_top_k);
  } else {
    policy.groups = router.groups;
    policy.groups_kept = router.groups > 1 ? router.top_groups : 1;
  }
  if (!router.top_k_distribution.empty()) {
    policy.top_k_distribution.assign(1, 0);
    policy.top_k_distribution.insert(policy.top_k_distribution.end(), router.top_k_distribution.begin(),
                                     router.top_k_distribution.end());
  }
  policy.tokens_per_decision = tokens_per_decision(router, workload, name);
  return policy;
}

}  // namespace moecast
