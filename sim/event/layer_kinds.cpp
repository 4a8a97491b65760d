#include "sim/event/layer_kinds.h"

#include <fmt/format.h>

#include <algorithm>
#include <variant>

namespace moecast {

LayerKinds layer_kinds(const Architecture& architecture, const Workload& workload) {
  LayerKinds found;
  std::vector<LayerKind>& kinds = found.kinds;
  const auto scan = [&](const std::vector<Layer>& layers, const char* prefix) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      for (const Block& block : layers[i].blocks) {
        const auto* moe = std::get_if<MoeBlock>(&block);
        if (moe == nullptr) continue;
        const auto same = std::ranges::find_if(kinds, [&](const LayerKind& kind) { return *kind.block == *moe; });
        found.of_layer.push_back(static_cast<int>(same - kinds.begin()));
        if (same != kinds.end()) {
          ++same->count;
        } else {
          kinds.push_back({moe, fmt::format("{}{}.moe", prefix, i), 1});
        }
      }
    }
  };
  const bool prompts =
      workload.phase == Phase::prefill || (workload.phase == Phase::mixed && workload.prefill_batch > 0);
  if (workload.phase == Phase::encode || prompts) scan(architecture.encoder, "encoder.");
  if (workload.phase != Phase::encode) scan(architecture.decoder, "layers.");
  return found;
}

}  // namespace moecast
