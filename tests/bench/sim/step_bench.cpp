#include <benchmark/benchmark.h>

#include "models/architecture/zoo.h"
#include "sim/step/step_model.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;

StepModel deepseek() {
  const Architecture architecture = load_zoo(kRoot + "/models/zoo", "deepseek-v3");
  static const KernelCalibration kernels = read_kernel_calibration(kRoot + "/hwprofiles/h200-sxm", "h200-sxm");
  EngineSpec engine = read_engine(kRoot + "/models/plan/engines", "vllm");
  Deployment deployment;
  deployment.tp = 8;
  deployment.backend = "vllm-0.24.0";
  return {make_step_operators(architecture, deployment, engine, kernels), engine, deployment, kernels.device};
}

/// One decode step of DeepSeek-V3 (61 layers) at a batch and context that were not asked for before.
void StepAtNewBatchAndContext(benchmark::State& state) {
  static const StepModel model = deepseek();
  StepShape shape;
  double batch = 1;
  for (auto _ : state) {
    batch = batch < 500 ? batch + 1 : 1;
    shape.decodes = batch;
    shape.rows = shape.expert_rows = model.padded(batch);
    shape.decode_kv = 1000 + 17 * batch;
    const StepTimes times = model.times(shape);
    const StepCost cost = model.cost({sum(times), batch, StepLaunch::graph, false});
    benchmark::DoNotOptimize(model.half_width(times, cost, StepLaunch::graph));
  }
}
BENCHMARK(StepAtNewBatchAndContext);

/// A deployment that was not asked for before: every operator finds and compiles its kernel.
void CompileStep(benchmark::State& state) {
  const Architecture architecture = load_zoo(kRoot + "/models/zoo", "deepseek-v3");
  static const KernelCalibration kernels = read_kernel_calibration(kRoot + "/hwprofiles/h200-sxm", "h200-sxm");
  const EngineSpec engine = read_engine(kRoot + "/models/plan/engines", "vllm");
  Deployment deployment;
  deployment.tp = 8;
  deployment.backend = "vllm-0.24.0";
  for (auto _ : state) {
    benchmark::DoNotOptimize(make_step_operators(architecture, deployment, engine, kernels));
  }
}
BENCHMARK(CompileStep)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace moecast
