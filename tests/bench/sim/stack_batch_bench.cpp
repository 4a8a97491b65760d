#include <benchmark/benchmark.h>

#include "sim/analytic/stack_batch.h"
#include "tests/support/random_models.h"
#include "tests/support/synthetic_calibration.h"

namespace moecast {
namespace {

/// Whole models of 12 layers whose layers were seen before.
void PredictModels(benchmark::State& state) {
  constexpr std::size_t kModels = 4096;
  constexpr std::size_t kLayers = 12;
  Deployment d;
  d.backend = "onednn";
  d.dtype = DType::fp32;
  Workload w;
  w.context = 256;
  StackBatch batch(synthetic_profile(), std::make_shared<const Calibration>(synthetic_calibration({"onednn"}, 600)), d,
                   w);
  std::vector<std::int32_t> rows;
  for (const Architecture& model : random_models(kModels, kLayers, 1)) {
    const auto parts = batch.parts_of(model);
    rows.insert(rows.end(), parts.begin(), parts.end());
  }
  batch.prepare({rows, kLayers + 1});
  std::vector<double> latency(kModels);
  std::vector<double> low(kModels);
  std::vector<double> high(kModels);
  StackTimes times;
  times.latency_s = latency;
  times.low_s = low;
  times.high_s = high;
  for (auto _ : state) {
    benchmark::DoNotOptimize(batch.predict({rows, kLayers + 1}, times));
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kModels));
}
BENCHMARK(PredictModels)->Unit(benchmark::kMillisecond);

/// What a layer costs that no model had before.
void NewParts(benchmark::State& state) {
  Deployment d;
  d.backend = "onednn";
  d.dtype = DType::fp32;
  Workload w;
  w.context = 256;
  const std::vector<Architecture> models = random_models(200, 12, 2);
  std::size_t parts_made = 0;
  const auto calibration = std::make_shared<const Calibration>(synthetic_calibration({"onednn"}, 600));
  for (auto _ : state) {
    StackBatch batch(synthetic_profile(), calibration, d, w);
    std::vector<std::int32_t> rows;
    for (const Architecture& model : models) {
      const auto parts = batch.parts_of(model);
      rows.insert(rows.end(), parts.begin(), parts.end());
    }
    batch.prepare({rows, 13});
    parts_made += batch.part_count();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(parts_made));
}
BENCHMARK(NewParts)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace moecast
