#include "tools/loop/session_runner.h"

#include <memory>
#include <utility>

#include "models/architecture/architecture.h"
#include "profiler/cpu/kernel_job.h"
#include "profiler/reference/executable.h"

namespace moecast {
namespace {

std::vector<Measurement> summarise_kernels(const std::vector<KernelPoint>& points,
                                           const std::vector<JobSamples>& samples) {
  std::vector<Measurement> kernels;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (const auto measured = summarise(points[i], samples[i])) kernels.push_back(*measured);
  }
  return kernels;
}

}  // namespace

SessionResult run_mixed_session(const SessionRequest& request, const KernelBuffers& buffers) {
  std::vector<std::unique_ptr<Job>> jobs;
  for (const KernelPoint& point : request.kernels) jobs.push_back(make_kernel_job(point, buffers));
  ExecutableOptions options;
  options.variety = WeightVariety::alike;
  options.arena = std::make_shared<Arena>();
  std::vector<std::shared_ptr<Executable>> executables;
  for (const ValidationCase& layer : request.layers) {
    options.seed = layer.workload.load.seed;
    executables.push_back(make_executable(layer.architecture, layer.deployment, layer.workload, options));
    jobs.push_back(make_layer_job(executables.back()));
  }
  SessionOptions timing = request.timing;
  if (request.checkpoint) {
    timing.after_round = [&](const std::vector<JobSamples>& so_far) {
      request.checkpoint(summarise_kernels(request.kernels, so_far));
    };
  }
  const std::vector<JobSamples> samples = run_session(jobs, timing);

  SessionResult result;
  const auto rounds = static_cast<std::size_t>(timing.rounds);
  result.kernels = summarise_kernels(request.kernels, samples);
  for (std::size_t i = 0; i < executables.size(); ++i) {
    const auto summary = summarise_timing(samples[request.kernels.size() + i]);
    if (!summary) continue;
    ExecutedCase executed{request.layers[i], *summary};
    if (is_lone_block(executed.asked.architecture) && executables[i]->moe_blocks() == 1) {
      executed.asked.workload.rows_per_expert = executables[i]->rows_per_expert(0);
    }
    result.complete = result.complete && summary->round_s.size() == rounds;
    result.layers.push_back(std::move(executed));
  }
  for (const Measurement& kernel : result.kernels) {
    result.complete = result.complete && kernel.round_s.size() == rounds;
  }
  result.complete = result.complete && result.kernels.size() == request.kernels.size() &&
                    result.layers.size() == request.layers.size();
  return result;
}

}  // namespace moecast
