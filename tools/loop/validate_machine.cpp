#include "tools/loop/validate_machine.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "models/core/error.h"
#include "models/core/file.h"
#include "profiler/reference/support.h"
#include "sim/make_predictor.h"
#include "tools/loop/closure.h"
#include "tools/loop/configuration_file.h"
#include "tools/loop/profile_plan.h"

namespace moecast {
namespace {

/// Stratum of the layers that closures are made from: none of those that are judged.
constexpr const char* kCalibrating = "calibrating";

/// Kernels that the combinations need: their GEMMs, and all stages of their threads.
std::vector<KernelPoint> kernels_of(const std::vector<Measurement>& samples,
                                    const std::vector<KernelSetting>& combinations) {
  std::vector<KernelPoint> points;
  for (const Measurement& row : samples) {
    const KernelPoint& p = row.point;
    if (only_checks(p.kind)) continue;
    const bool is_gemm = p.kind == OperatorKind::gemm;
    const auto needs = [&](const KernelSetting& c) {
      return c.threads == p.threads && c.dtype == p.dtype && (!is_gemm || c.backend == p.backend);
    };
    if (std::any_of(combinations.begin(), combinations.end(), needs)) points.push_back(p);
  }
  return points;
}

std::vector<KernelSetting> chosen(const std::vector<KernelSetting>& profiled, const std::vector<KernelSetting>& only) {
  if (only.empty()) return profiled;
  std::vector<KernelSetting> both;
  for (const KernelSetting& c : profiled) {
    if (std::find(only.begin(), only.end(), c) != only.end()) both.push_back(c);
  }
  return both;
}

std::vector<ValidationCase> cases_of_model(const ValidateRequest& request,
                                           const std::vector<KernelSetting>& combinations) {
  std::vector<ValidationCase> cases;
  for (const KernelSetting& c : combinations) {
    for (const std::int64_t tokens : request.tokens) {
      ValidationCase asked{setting_stratum(c), *request.model, {}, {}};
      asked.deployment.backend = c.backend;
      asked.deployment.dtype = c.dtype;
      asked.deployment.threads = c.threads;
      asked.workload.batch = tokens;
      asked.workload.context = request.context;
      require_executable(asked.architecture, asked.deployment, asked.workload);
      cases.push_back(std::move(asked));
    }
  }
  return cases;
}

std::vector<ValidationCase> cases_of(const ValidateRequest& request, const std::vector<KernelSetting>& combinations) {
  if (request.model) return cases_of_model(request, combinations);
  if (!request.configurations.empty()) return read_configurations(request.configurations, combinations);
  CaseOptions cases;
  cases.cases = request.cases;
  cases.seed = request.seed;
  cases.combinations = combinations;
  return draw_cases(cases);
}

}  // namespace

std::vector<KernelSetting> profiled_combinations(const std::vector<Measurement>& samples) {
  std::vector<KernelSetting> combinations;
  for (const Measurement& row : samples) {
    if (row.point.kind != OperatorKind::gemm) continue;
    const KernelSetting c{row.point.backend, row.point.dtype, row.point.threads};
    if (std::find(combinations.begin(), combinations.end(), c) == combinations.end()) combinations.push_back(c);
  }
  return combinations;
}

ValidateOutcome validate_machine(const ValidateRequest& request) {
  const Profile profile = read_profile(request.folder);
  const std::vector<Measurement> samples = read_samples(request.folder);
  Calibration calibration = read_calibration(request.folder);
  if (samples.empty()) {
    throw InputError(request.folder + "/samples", "holds no samples", "moecast profile measures them");
  }
  const std::vector<KernelSetting> combinations = chosen(profiled_combinations(samples), request.only);
  if (combinations.empty()) {
    throw InputError(request.folder, "nothing of what was asked for was profiled",
                     "moecast profile with the same --backend, --dtype and --threads");
  }
  const std::vector<ValidationCase> drawn = cases_of(request, combinations);

  const KernelBuffers buffers = request.interleaved ? KernelBuffers() : KernelBuffers(0);  // stored ones are not timed
  SessionRequest session;
  session.layers = drawn;
  if (request.interleaved) {
    session.kernels = kernels_of(samples, combinations);
    const MachineSpeed speed = measure_speed(combinations.front(), buffers);
    for (ValidationCase& layer : closure_layers(combinations, speed, Seconds(1e9), request.rounds)) {
      layer.stratum = kCalibrating;
      session.layers.push_back(std::move(layer));
    }
  }
  session.timing.rounds = request.rounds;
  session.timing.budget = Seconds(24 * 3600);
  session.timing.interrupted = request.interrupted;
  if (request.progress) {
    session.timing.progress = [&](double done, Seconds left) {
      request.progress("executing layers and kernels", done, left);
    };
  }
  SessionResult result = run_mixed_session(session, buffers);

  ValidateOutcome outcome;
  outcome.kernels = session.kernels.size();
  outcome.complete = result.complete;
  if (request.interleaved) {
    std::vector<ExecutedLayer> calibrating;
    std::erase_if(result.layers, [&](const ExecutedCase& layer) {
      if (layer.asked.stratum != kCalibrating) return false;
      calibrating.push_back(executed_layer(layer));
      return true;
    });
    calibration = calibrate_with_layers(profile, result.kernels, calibrating);
  }
  const auto shared = std::make_shared<const Calibration>(std::move(calibration));
  outcome.report =
      judge(result.layers, *make_predictor(profile, shared), Baselines(request.interleaved ? result.kernels : samples));
  return outcome;
}

}  // namespace moecast
