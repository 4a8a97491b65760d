#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "models/architecture/architecture.h"
#include "tools/cli/data_folders.h"

namespace moecast {

/// A single MoE layer described by flags.
struct LayerChoice {
  std::int64_t hidden = 0;
  std::int64_t width = 0;
  std::int64_t experts = 0;
  std::int64_t top_k = 1;
  std::int64_t shared_experts = 0;  ///< of the same width
  bool gated = true;
  std::optional<double> capacity_factor;
  bool pad = false;
  std::string overflow;    ///< empty = drop
  std::string activation;  ///< empty = silu
};

/// A zoo name, a Hugging Face config.json or an own description.
/// @throws UsageError on an unknown name (nearest suggested), InputError on a bad file.
Architecture load_model(const std::string& name, const DataFolders& folders);

/// @throws UsageError on top-k above the experts, or an unknown activation or overflow policy.
Architecture make_layer(const LayerChoice& choice);

}  // namespace moecast
