#include "profiler/reference/counters.h"

namespace moecast {

std::string_view to_string(Stage stage) {
  constexpr std::array<std::string_view, kStages> kNames{"embedding", "norm",     "attention", "router",
                                                         "dispatch",  "experts",  "combine",   "shared",
                                                         "dense",     "residual", "head"};
  return kNames[static_cast<std::size_t>(stage)];
}

StageCounters& StageCounters::operator+=(const StageCounters& other) {
  gemm_calls += other.gemm_calls;
  calls += other.calls;
  flops += other.flops;
  weight_bytes += other.weight_bytes;
  read_bytes += other.read_bytes;
  written_bytes += other.written_bytes;
  return *this;
}

StageCounters Counters::total() const {
  StageCounters sum;
  for (const StageCounters& stage : stages) sum += stage;
  return sum;
}

}  // namespace moecast
