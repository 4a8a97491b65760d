#include "models/architecture/dense_twin.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "models/architecture/accounting.h"
#include "models/core/error.h"

namespace moecast {
namespace {

constexpr std::array<std::string_view, 2> kNames{"flops", "parameters"};

DenseFfnBlock dense_block(const MoeBlock& moe, std::int64_t hidden, Matched matched, std::int64_t multiple) {
  const ParameterCount count = block_parameters(moe, hidden);
  const ExpertSpec& first = moe.experts.front().expert;
  DenseFfnBlock dense;
  dense.ffn.gated = first.gated;
  dense.ffn.bias = first.bias;
  dense.ffn.activation = first.activation;
  dense.ffn.output = first.output;
  // Parameters are linear in the width: a * width + b.
  const auto parameters = [&](std::int64_t width) {
    ExpertSpec spec = dense.ffn;
    spec.width = width;
    return expert_parameters(spec, hidden);
  };
  const double offset = parameters(0);
  const double each = parameters(1) - offset;
  const double wanted = matched == Matched::flops ? count.active : count.total;
  const auto steps = std::llround((wanted - offset) / (each * static_cast<double>(multiple)));
  dense.ffn.width = std::max<std::int64_t>(1, steps) * multiple;
  return dense;
}

}  // namespace

std::string_view to_string(Matched matched) { return kNames[static_cast<std::size_t>(matched)]; }

std::optional<Matched> find_matched(std::string_view text) {
  const auto found = std::ranges::find(kNames, text);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<Matched>(found - kNames.begin());
}

Architecture dense_twin(const Architecture& architecture, Matched matched, std::int64_t multiple) {
  if (multiple < 1) throw InputError("multiple", "is " + std::to_string(multiple), "expected at least 1");
  Architecture twin = architecture;
  bool found = false;
  for (auto* stack : {&twin.encoder, &twin.decoder, &twin.multi_token_prediction}) {
    const std::int64_t hidden = stack_hidden(architecture, stack == &twin.encoder);
    for (Layer& layer : *stack) {
      for (Block& block : layer.blocks) {
        const auto* moe = std::get_if<MoeBlock>(&block);
        if (moe == nullptr || moe->experts.empty()) continue;
        block = dense_block(*moe, hidden, matched, multiple);
        found = true;
      }
    }
  }
  if (!found) {
    throw InputError(architecture.name, "has no MoE block to compare with a dense one", "choose a MoE model");
  }
  twin.name += matched == Matched::flops ? ", dense of equal FLOPs" : ", dense of equal parameters";
  twin.published = {};
  twin.expert_dtype.reset();
  return twin;
}

}  // namespace moecast
