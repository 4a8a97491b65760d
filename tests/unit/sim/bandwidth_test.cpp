// Memory that is twice as fast, in the laws of CPUs and GPUs: nothing takes longer (A25).
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/core/file.h"
#include "sim/cost/kernel/kernel_calibration.h"
#include "sim/make_predictor.h"
#include "tests/support/h200_machine.h"

namespace moecast {
namespace {

const std::string kProfiles = MOECAST_SOURCE_DIR "/hwprofiles/";

/// The shipped CPU profile with every bandwidth of its laws multiplied.
std::unique_ptr<Predictor> cpu(double times) {
  const std::string folder = kProfiles + "intel-xeon-processor-2cpu";
  Calibration calibration = read_calibration(folder);
  for (GemmCalibration& gemm : calibration.gemms) {
    Eigen::VectorXd parameters = gemm.law.log_parameters();
    parameters.tail(GemmLaw::kNodes).array() += std::log(times);
    gemm.law = GemmLaw(gemm.law.traits(), parameters);
  }
  for (StageCalibration& stage : calibration.stages) {
    Eigen::VectorXd coefficients = stage.law.coefficients();
    coefficients.tail(StageLaw::kByteNodes) /= times;  // seconds a byte
    stage.law = StageLaw(stage.law.kind(), coefficients);
  }
  return make_predictor(read_profile(folder), std::make_shared<const Calibration>(std::move(calibration)));
}

/// The H200 as its laws were calibrated, on memory so many times as fast.
std::unique_ptr<Predictor> gpu(double times) {
  const std::string folder = testing::TempDir() + "/h200-bandwidth-" + std::to_string(static_cast<int>(times));
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  std::filesystem::copy(kProfiles + "h200-sxm", folder, std::filesystem::copy_options::recursive);
  KernelCalibration calibration = read_kernel_calibration(folder, "h200-sxm");
  calibration.device.bandwidth *= times;
  write_file_atomically(folder + "/" + std::string(kKernelCalibrationFile), kernel_calibration_text(calibration));
  return load_gpu_predictor(folder, MOECAST_SOURCE_DIR "/models/plan/engines");
}

struct Question {
  const char* model;
  Deployment deployment;
  Workload workload;
};

Workload step(Phase phase, std::int64_t batch, std::int64_t length) {
  Workload w;
  w.phase = phase;
  w.batch = batch;
  (phase == Phase::decode ? w.context : w.prompt) = length;
  return w;
}

/// How much longer the slower memory takes, of each question.
std::vector<double> gains(const Predictor& once, const Predictor& twice, const std::vector<Question>& questions) {
  std::vector<double> ratios;
  Without without;
  without.memory_capacity = true;
  for (const Question& q : questions) {
    const Architecture model = zoo_model(q.model);
    const Prediction slow = once.predict(model, q.deployment, q.workload, without);
    const Prediction fast = twice.predict(model, q.deployment, q.workload, without);
    EXPECT_TRUE(slow.latency && fast.latency) << q.model << ": " << slow.reason;
    if (!slow.latency || !fast.latency) continue;
    EXPECT_LE(*fast.latency, *slow.latency * (1 + 1e-12)) << q.model;
    ratios.push_back(*slow.latency / *fast.latency);
  }
  return ratios;
}

TEST(MemoryBandwidth, TwiceAsMuchIsNeverSlowerOnACpu_A25) {
  Deployment d;
  d.backend = "onednn";
  d.dtype = DType::fp32;
  d.threads = 1;
  const std::vector<double> ratios = gains(*cpu(1), *cpu(2),
                                           {{"olmoe-1b-7b", d, step(Phase::decode, 1, 512)},
                                            {"olmoe-1b-7b", d, step(Phase::decode, 32, 128)},
                                            {"olmoe-1b-7b", d, step(Phase::prefill, 1, 256)},
                                            {"deepseek-v2-lite", d, step(Phase::decode, 4, 512)}});
  // A decode step of one token reads weights and does little else; a prompt computes.
  EXPECT_GT(ratios.front(), 1.5);
  EXPECT_LE(ratios.front(), 2);
}

TEST(MemoryBandwidth, TwiceAsMuchIsNeverSlowerOnAGpu_A25) {
  Deployment alone;
  Deployment spread;
  spread.ep = spread.dp = 8;
  const std::vector<double> ratios = gains(*gpu(1), *gpu(2),
                                           {{"qwen3-30b-a3b", alone, step(Phase::decode, 16, 8192)},
                                            {"qwen3-30b-a3b", alone, step(Phase::decode, 256, 1024)},
                                            {"qwen3-30b-a3b", alone, step(Phase::prefill, 4, 2048)},
                                            {"qwen3-30b-a3b", spread, step(Phase::decode, 64, 4096)},
                                            {"deepseek-v2-lite", alone, step(Phase::decode, 8, 4096)}});
  EXPECT_GT(ratios.front(), 1.2);
  EXPECT_LE(ratios.front(), 2);
}

}  // namespace
}  // namespace moecast
