#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "models/architecture/architecture.h"

namespace moecast {

/// How a published MoE system executes a layer over ranks: models/systems/<name>.json. What a file does not say is as
/// where no system is named.
struct MoeSystem {
  std::string name;
  std::string dispatch, exchange, placement;  ///< words of the flags of the event engine; empty: usual
  int chunks = 1;                             ///< in which exchanges and experts are pipelined
  int shadowed_experts = 0;                   ///< most popular ones, sent to every rank
  std::int64_t row_block = 1;                 ///< rows that an expert computes are a multiple of this
  std::optional<CapacitySpec> capacity;       ///< of experts whose model does not say one; nullopt: none
  std::string source;
};

/// @throws InputError naming the pointer.
MoeSystem parse_moe_system(std::string_view text, const std::string& where);
/// FOLDER/<name>.json. @throws InputError when there is none, naming the nearest.
MoeSystem read_moe_system(const std::string& folder, const std::string& name);

/// The model as the system runs it: its capacity for every layer of experts that tokens choose and that has none.
Architecture run_by(const MoeSystem& system, Architecture architecture);

}  // namespace moecast
