#include <benchmark/benchmark.h>

#include "sim/cost/kernel/kernel_calibration.h"

namespace moecast {
namespace {

std::string folder(const std::string& name) { return std::string(MOECAST_SOURCE_DIR) + "/hwprofiles/" + name; }

const KernelModel& largest_moe_kernel() {
  static const KernelCalibration h200 = read_kernel_calibration(folder("h200-sxm"), "h200-sxm");
  const KernelModel* largest = nullptr;
  for (const KernelModel& model : h200.kernels) {
    if (model.key.layout == "moe" && (largest == nullptr || model.rows > largest->rows)) largest = &model;
  }
  return *largest;
}

const std::vector<double> kRow{64, 4096, 1536, 8, 128, 1, 4, 0, 3};

/// One configuration that was never measured, of the kernel with the most curves.
void CompileKernel(benchmark::State& state) {
  const KernelModel& model = largest_moe_kernel();
  CompiledKernel::Workspace workspace;
  for (auto _ : state) benchmark::DoNotOptimize(CompiledKernel(model, kRow, workspace));
}
BENCHMARK(CompileKernel)->Unit(benchmark::kMicrosecond);

/// One more token count of it.
void AskCompiledKernel(benchmark::State& state) {
  CompiledKernel::Workspace workspace;
  const CompiledKernel compiled(largest_moe_kernel(), kRow, workspace);
  RankLoadCache loads;
  std::vector<double> row = kRow;
  double tokens = 1;
  for (auto _ : state) {
    row[0] = tokens;
    benchmark::DoNotOptimize(compiled.at({row, RankLoad{tokens * 2, 32, tokens / 8}}, loads));
    tokens = tokens < 8000 ? tokens + 1 : 1;
  }
}
BENCHMARK(AskCompiledKernel)->Unit(benchmark::kNanosecond);

void LoadKernels(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(read_kernel_calibration(folder("h200-sxm"), "h200-sxm"));
}
BENCHMARK(LoadKernels)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace moecast
