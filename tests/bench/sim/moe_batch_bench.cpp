#include <benchmark/benchmark.h>

#include "sim/analytic/moe_batch.h"
#include "tests/support/random_layers.h"
#include "tests/support/synthetic_calibration.h"

namespace moecast {
namespace {

constexpr int kPoints = 600;
constexpr std::size_t kLayers = 65536;

const Calibration& calibration() {
  static const Calibration made = synthetic_calibration({"onednn", "openblas"}, kPoints);
  return made;
}

std::vector<ExpertLoad> loads(int count) {
  std::vector<ExpertLoad> all{
      {LoadKind::uniform, 0, {}, 1}, {LoadKind::zipf, 0.5, {}, 1}, {LoadKind::zipf, 1.5, {}, 1}};
  all.resize(static_cast<std::size_t>(count));
  return all;
}

MoeBatch batch(const char* backend, KernelStrategy strategy, int load_count) {
  Deployment d;
  d.backend = backend;
  d.strategy = strategy;
  d.dtype = DType::fp32;
  return {calibration(), d, loads(load_count)};
}

/// Many layers over the whole range, once the residual's table has been filled by the same layers.
void PredictBatch(benchmark::State& state, const char* backend, KernelStrategy strategy, int load_count) {
  const RandomLayers layers(kLayers, 5, static_cast<std::size_t>(load_count));
  MoeBatch prepared = batch(backend, strategy, load_count);
  prepared.prepare(layers.columns());
  MoeAnswers answers(kLayers);
  const MoeTimes times = answers.times();
  if (!prepared.predict(layers.columns(), times)) state.SkipWithError("a combination was not prepared");
  while (state.KeepRunning()) {
    benchmark::DoNotOptimize(prepared.predict(layers.columns(), times));
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kLayers));
}
BENCHMARK_CAPTURE(PredictBatch, onednn_uniform, "onednn", KernelStrategy::sorted_grouped, 1)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(PredictBatch, onednn_skewed, "onednn", KernelStrategy::sorted_grouped, 3)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(PredictBatch, openblas_uniform, "openblas", KernelStrategy::sorted_grouped, 1)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(PredictBatch, onednn_dense_mask, "onednn", KernelStrategy::dense_mask, 1)
    ->Unit(benchmark::kMillisecond);

/// Layers that nobody asked for before, every time others, after a quarter of a million of the same ranges: what a
/// search asks.
void PredictBatchNewLayers(benchmark::State& state) {
  constexpr std::size_t kNew = 4096;
  MoeBatch prepared = batch("onednn", KernelStrategy::sorted_grouped, 1);
  MoeAnswers warm(kLayers);
  for (int seed = 100; seed < 104; ++seed) {
    const RandomLayers layers(kLayers, seed, 1);
    prepared.prepare(layers.columns());
    if (!prepared.predict(layers.columns(), warm.times())) state.SkipWithError("a combination was not prepared");
  }
  int seed = 1000;
  MoeAnswers answers(kNew);
  while (state.KeepRunning()) {
    state.PauseTiming();
    const RandomLayers layers(kNew, seed++, 1);
    prepared.prepare(layers.columns());
    state.ResumeTiming();
    benchmark::DoNotOptimize(prepared.predict(layers.columns(), answers.times()));
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kNew));
}
BENCHMARK(PredictBatchNewLayers)->Unit(benchmark::kMillisecond);

/// The same, table empty: what the first pass over new layers costs, loads learnt before.
void PredictBatchFirstPass(benchmark::State& state) {
  const RandomLayers layers(kLayers, 5, 1);
  MoeAnswers answers(kLayers);
  const MoeTimes times = answers.times();
  while (state.KeepRunning()) {
    state.PauseTiming();
    MoeBatch prepared = batch("onednn", KernelStrategy::sorted_grouped, 1);
    prepared.prepare(layers.columns());
    state.ResumeTiming();
    benchmark::DoNotOptimize(prepared.predict(layers.columns(), times));
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kLayers));
}
BENCHMARK(PredictBatchFirstPass)->Unit(benchmark::kMillisecond)->Iterations(1);

/// One layer a call, another one every time.
void PredictOneLayer(benchmark::State& state) {
  constexpr std::size_t kFew = 1024;
  const RandomLayers layers(kFew, 9, 1);
  MoeBatch prepared = batch("onednn", KernelStrategy::sorted_grouped, 1);
  prepared.prepare(layers.columns());
  MoeAnswers answers(kFew);
  const MoeTimes all = answers.times();
  if (!prepared.predict(layers.columns(), all)) state.SkipWithError("a combination was not prepared");
  std::size_t row = 0;
  while (state.KeepRunning()) {
    const auto at = [&](const auto& column) { return std::span(column).subspan(row, 1); };
    const MoeColumns one{at(layers.hidden),   at(layers.width),  at(layers.experts),
                         at(layers.top_k),    at(layers.tokens), at(layers.gated),
                         at(layers.capacity), at(layers.copies), at(layers.load)};
    MoeTimes time;
    time.latency_s = all.latency_s.subspan(row, 1);
    benchmark::DoNotOptimize(prepared.predict(one, time));
    benchmark::ClobberMemory();
    row = (row + 1) % kFew;
  }
}
BENCHMARK(PredictOneLayer);

}  // namespace
}  // namespace moecast
