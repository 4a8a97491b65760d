#include <benchmark/benchmark.h>

#include "models/architecture/moe.h"
#include "models/plan/graph.h"
#include "sim/analytic/analytic.h"
#include "sim/cost/calibration.h"
#include "sim/make_predictor.h"
#include "sim/predictor.h"
#include "tests/support/synthetic_calibration.h"

namespace moecast {
namespace {

constexpr int kPoints = 600;

const std::shared_ptr<const Calibration>& calibration() {
  static const auto made = std::make_shared<const Calibration>(synthetic_calibration({"onednn", "openblas"}, kPoints));
  return made;
}

Architecture layer(std::int64_t experts, int top_k) {
  Architecture a;
  a.name = "layer";
  a.hidden = 1024;
  a.dtype = DType::fp32;
  MoeBlock moe;
  ExpertSpec expert;
  expert.width = 2048;
  moe.experts = {{experts, expert, ""}};
  moe.router.top_k = top_k;
  a.decoder = {{{moe}}};
  return a;
}

Deployment deployment() {
  Deployment d;
  d.backend = "onednn";
  return d;
}

void PredictLayer(benchmark::State& state, LoadKind kind) {
  const auto predictor = make_predictor(synthetic_profile(), calibration());
  const Architecture architecture = layer(32, 4);
  Workload workload;
  workload.batch = 64;
  workload.load.kind = kind;
  workload.load.parameter = 1.2;
  for (auto _ : state) {
    benchmark::DoNotOptimize(predictor->predict(architecture, deployment(), workload));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_CAPTURE(PredictLayer, uniform, LoadKind::uniform)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(PredictLayer, zipf, LoadKind::zipf)->Unit(benchmark::kMicrosecond);

void BuildLayerGraph(benchmark::State& state) {
  const Architecture architecture = layer(32, 4);
  Workload workload;
  workload.batch = 64;
  for (auto _ : state) benchmark::DoNotOptimize(build_graph(architecture, deployment(), workload));
}
BENCHMARK(BuildLayerGraph)->Unit(benchmark::kMicrosecond);

void GemmCost(benchmark::State& state) {
  const auto model = make_cost_model(calibration());
  KernelPoint point;
  point.backend = "onednn";
  point.shape.m = 64;
  point.shape.n = 1024;
  point.shape.k = 2048;
  point.footprint = Bytes(1e8);
  for (auto _ : state) benchmark::DoNotOptimize(model->cost(point));
}
BENCHMARK(GemmCost);

void CalibrateFromSamples(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(synthetic_calibration({"onednn"}, 200));
}
BENCHMARK(CalibrateFromSamples)->Unit(benchmark::kMillisecond);

void LoadCalibration(benchmark::State& state) {
  const std::string text = calibration_text(*calibration());
  for (auto _ : state) benchmark::DoNotOptimize(parse_calibration_text(text, "calibration.json"));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK(LoadCalibration)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace moecast
