// moecast_estimate_latency as a search calls it: on a shipped profile, another layer every time.
#include <benchmark/benchmark.h>

#include <cstdint>

#include "tools/c/moecast.h"

namespace {

void EstimateLatency(benchmark::State& state, const char* hw, const char* load) {
  const moecast_settings settings{sizeof(moecast_settings), nullptr, nullptr, nullptr, MOECAST_SOURCE_DIR, 0, 0};
  moecast_predictor* predictor = nullptr;
  if (moecast_open(hw, &settings, &predictor) != MOECAST_OK) {
    state.SkipWithError(moecast_last_error());
    return;
  }
  moecast_moe_config layer = MOECAST_MOE_CONFIG_INIT;
  layer.load = load;
  layer.width = 2048;
  layer.experts = 32;
  layer.top_k = 4;
  moecast_estimate answer = MOECAST_ESTIMATE_INIT;
  std::int64_t call = 0;
  while (state.KeepRunning()) {
    layer.hidden = 512 + 64 * (call % 17);
    layer.tokens = 1 + call % 512;
    ++call;
    if (moecast_estimate_latency(predictor, &layer, &answer) != MOECAST_OK) {
      state.SkipWithError(moecast_last_error());
      break;
    }
    if (answer.outcome != MOECAST_OUTCOME_OK) {
      state.SkipWithError(answer.reason);
      break;
    }
    benchmark::DoNotOptimize(answer);
  }
  state.SetItemsProcessed(state.iterations());
  moecast_close(predictor);
}
BENCHMARK_CAPTURE(EstimateLatency, cpu_uniform, "amd-epyc-2cpu", "uniform")->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(EstimateLatency, cpu_zipf, "amd-epyc-2cpu", "zipf:1.2")->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(EstimateLatency, h200, "h200-sxm", "uniform")->Unit(benchmark::kMicrosecond);

}  // namespace
