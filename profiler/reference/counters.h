#pragma once
#include <array>
#include <cstdint>
#include <string_view>

#include "models/core/units.h"

namespace moecast {

/// Part of a step that work is counted for.
enum class Stage { embedding, norm, attention, router, dispatch, experts, combine, shared, dense, residual, head };
inline constexpr std::size_t kStages = 11;
std::string_view to_string(Stage stage);

/// What was really executed, counted call by call.
struct StageCounters {
  std::int64_t gemm_calls = 0;
  std::int64_t calls = 0;  ///< all kernel calls, GEMMs included
  Flops flops;             ///< of GEMMs and attention, rows of padding included
  Bytes weight_bytes;      ///< weights as stored without layout padding, once a call
  Bytes read_bytes;        ///< activations (and KV cache)
  Bytes written_bytes;
  StageCounters& operator+=(const StageCounters& other);
};

/// Counts of one run.
struct Counters {
  std::array<StageCounters, kStages> stages{};
  std::int64_t demanded = 0;  ///< expert choices of all MoE blocks before capacity
  std::int64_t routed = 0;    ///< rows that experts computed for tokens
  std::int64_t dropped = 0;   ///< choices that found no room: demanded = routed + dropped
  std::int64_t padded = 0;    ///< rows computed beyond those: empty slots, masked tokens

  [[nodiscard]] StageCounters& operator[](Stage stage) { return stages[static_cast<std::size_t>(stage)]; }
  [[nodiscard]] const StageCounters& operator[](Stage stage) const { return stages[static_cast<std::size_t>(stage)]; }
  [[nodiscard]] StageCounters total() const;
};

}  // namespace moecast
