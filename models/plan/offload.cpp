#include "models/plan/offload.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "models/architecture/accounting.h"
#include "models/core/error.h"
#include "models/plan/memory.h"

namespace moecast {
namespace {

int experts_of_rank(const MoeBlock& moe, const Deployment& d) {
  const std::int64_t experts = moe.expert_count();
  if (d.ep < 1 || experts % d.ep != 0) {
    throw InputError("ep", std::to_string(d.ep) + " ranks do not divide experts = " + std::to_string(experts),
                     "choose a degree that divides it");
  }
  return static_cast<int>(experts / d.ep);
}

/// Calls `visit(block, hidden)` for every MoE block of the stacks whose layers a rank holds.
template <class Visit>
void each_moe(const Architecture& a, Visit visit) {
  for (const auto* stack : {&a.encoder, &a.decoder}) {
    for (const Layer& layer : *stack) {
      for (const Block& block : layer.blocks) {
        if (const auto* moe = std::get_if<MoeBlock>(&block)) {
          visit(*moe, stack_hidden(a, stack == &a.encoder), stack == &a.encoder);
        }
      }
    }
  }
}

bool runs(const Workload& w, bool encoder) {
  if (!encoder) return w.phase != Phase::encode;
  return w.phase == Phase::encode || w.phase == Phase::prefill || (w.phase == Phase::mixed && w.prefill_batch > 0);
}

}  // namespace

Bytes expert_weight_bytes(const MoeBlock& moe, const Architecture& a, std::int64_t hidden, const Deployment& d) {
  const double weight =
      a.expert_dtype && !d.dtype ? bytes_per_weight(*a.expert_dtype) : bytes_per_weight(d.dtype.value_or(a.dtype));
  const double experts = static_cast<double>(std::max<std::int64_t>(1, moe.expert_count()));
  return Bytes(block_parameters(moe, hidden).routed_experts / experts / expert_tensor_ranks(d) * weight);
}

Deployment with_resident_experts(const Architecture& a, const Deployment& asked, const Workload& workload,
                                 std::optional<Bytes> capacity) {
  if (!asked.offload) return asked;
  if (workload.phase == Phase::train) {
    throw InputError("offload", "of training steps is not supported yet", "leave it out");
  }
  Deployment d = asked;
  ExpertOffload& offload = *d.offload;
  std::int64_t most = 0;
  double one_each = 0;  // bytes of one expert of every layer
  each_moe(a, [&](const MoeBlock& moe, std::int64_t hidden, bool) {
    most = std::max<std::int64_t>(most, experts_of_rank(moe, d));
    one_each += expert_weight_bytes(moe, a, hidden, d).value() / d.pp;
  });
  if (most == 0) throw InputError("offload", a.name + " has no experts", "leave it out");
  if (offload.resident) {
    if (*offload.resident <= most) return d;
    throw InputError("resident_experts",
                     "are " + std::to_string(*offload.resident) + ", a rank has " + std::to_string(most),
                     "at most " + std::to_string(most));
  }
  if (offload.resident_bytes) {
    offload.resident =
        std::min(most, static_cast<std::int64_t>(std::floor(offload.resident_bytes->value() / one_each)));
    return d;
  }
  if (!capacity) {
    throw InputError("offload", "the profile says no memory capacity", "say how many experts of a layer stay");
  }
  const auto fits = [&](std::int64_t resident) {
    offload.resident = resident;
    return memory_per_rank(a, d, workload).total() <= *capacity;
  };
  std::int64_t low = 0;
  for (std::int64_t high = most + 1; high - low > 1;) {
    const std::int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  offload.resident = low;
  return d;
}

std::vector<OffloadedLayers> offloaded_layers(const Architecture& a, const Deployment& d, const Workload& w) {
  std::vector<OffloadedLayers> found;
  if (!d.offload || !d.offload->resident) return found;
  each_moe(a, [&](const MoeBlock& moe, std::int64_t hidden, bool encoder) {
    const int experts = experts_of_rank(moe, d);
    const auto resident = static_cast<int>(std::min<std::int64_t>(*d.offload->resident, experts));
    if (resident == experts) return;
    const ExpertSpec& first = moe.experts.front().expert;
    const bool alike = std::ranges::all_of(moe.experts, [&](const ExpertGroup& g) { return g.expert == first; });
    if (!alike || first.kind != ExpertKind::ffn) {
      throw InputError("offload",
                       "experts that differ within a layer, or are no feed-forward networks, stay on their "
                       "rank: fetching them is not supported yet");
    }
    const Bytes expert = expert_weight_bytes(moe, a, hidden, d);
    for (OffloadedLayers& known : found) {
      if (known.block == moe && known.expert == expert && known.runs == runs(w, encoder)) {
        known.layers += 1.0 / d.pp;
        return;
      }
    }
    found.push_back({moe, 1.0 / d.pp, experts, resident, expert, runs(w, encoder)});
  });
  return found;
}

Bytes offloaded_bytes(const std::vector<OffloadedLayers>& layers) {
  Bytes sum;
  for (const OffloadedLayers& l : layers) sum += l.expert * (l.layers * (l.experts - l.resident));
  return sum;
}

}  // namespace moecast
