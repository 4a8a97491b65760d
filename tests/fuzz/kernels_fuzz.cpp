// Any bytes are a calibration of kernels, curves of a table, or an InputError; what is accepted answers without a
// crash.
#include <cstdint>
#include <string_view>
#include <vector>

#include "models/core/error.h"
#include "sim/cost/kernel/kernel_calibration.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const moecast::KernelCalibration calibration = moecast::parse_kernel_calibration(text, "input");
    for (const moecast::KernelModel& model : calibration.kernels) {
      const std::vector<double> row(moecast::find_kernel_layout(model.key.layout)->numbers.size(), 2);
      moecast::CompiledKernel::Workspace workspace;
      moecast::RankLoadCache loads;
      (void)moecast::CompiledKernel(model, row, workspace).at({row}, loads);
    }
  } catch (const moecast::InputError&) {
  }
  for (const char* layout : {"moe", "gemm", "generation_attention"}) {
    try {
      const auto kernels = moecast::parse_curves_text(text, "input", {layout, "vllm", "1"});
      (void)moecast::curves_text(kernels);
    } catch (const moecast::InputError&) {
    }
  }
  return 0;
}
