#include "tools/loop/session_runner.h"

#include <utility>

#include "models/architecture/architecture.h"
#include "profiler/cpu/kernel_job.h"

namespace moecast {

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
  const std::vector<JobSamples> samples = run_session(jobs, request.timing);

  SessionResult result;
  const auto rounds = static_cast<std::size_t>(request.timing.rounds);
  for (std::size_t i = 0; i < request.kernels.size(); ++i) {
    const auto measured = summarise(request.kernels[i], samples[i]);
    if (measured) result.kernels.push_back(*measured);
    result.complete = result.complete && measured && measured->round_s.size() == rounds;
  }
  for (std::size_t i = 0; i < executables.size(); ++i) {
    const auto timing = summarise_timing(samples[request.kernels.size() + i]);
    result.complete = result.complete && timing && timing->round_s.size() == rounds;
    if (!timing) continue;
    ExecutedCase executed{request.layers[i], *timing};
    if (is_lone_block(executed.asked.architecture) && executables[i]->moe_blocks() == 1) {
      executed.asked.workload.rows_per_expert = executables[i]->rows_per_expert(0);
    }
    result.layers.push_back(std::move(executed));
  }
  return result;
}

}  // namespace moecast
