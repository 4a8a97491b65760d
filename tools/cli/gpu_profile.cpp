#include "tools/cli/gpu_profile.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "models/core/error.h"
#include "models/core/statistics.h"
#include "profiler/cuda/record.h"
#include "profiler/cuda/session.h"
#include "tools/loop/partial_profile.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

constexpr double kNoisy = 0.05;

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string device_name(const Profile& profile) {
  const auto found = profile.environment.find("device_name");
  return found == profile.environment.end() ? "another device" : found->second;
}

/// What an unfinished run left is continued on the same kind of GPU only, and never thrown away unasked.
void prepare_partial(const GpuProfileRequest& request, const Profile& machine) {
  check_profile_target(request.folder);
  const std::string partial = request.folder + ".partial";
  std::error_code ignored;
  if (request.fresh) fs::remove_all(partial, ignored);
  if (!fs::exists(partial + "/profile.json", ignored)) return;
  const std::string there = device_name(read_profile(partial));
  if (there == device_name(machine)) return;
  throw InputError(partial, fmt::format("holds an unfinished run of {}, this is {}", there, device_name(machine)),
                   "--out names another folder; --fresh forgets that run");
}

GpuSessionOptions timing(const GpuProfileRequest& request, std::function<double()> clock) {
  GpuSessionOptions options;
  options.rounds = request.rounds;
  options.budget = request.budget;
  options.interrupted = request.interrupted;
  options.clock = clock;
  if (request.progress) {
    options.progress = [&request, clock, start = clock()](int round, double done_ratio) {
      const double spent = clock() - start;
      const double rounds_done = (round + done_ratio) / request.rounds;
      const double done = std::clamp(std::max(spent / request.budget.value(), rounds_done), 1e-6, 1.0);
      request.progress(fmt::format("round {} of {}", round + 1, request.rounds), done,
                       Seconds(spent / done * (1 - done)));
    };
  }
  return options;
}

double precision_of(const std::vector<Measurement>& measurements) {
  std::vector<double> widths;
  for (const Measurement& row : measurements) widths.push_back(0.5 * (row.high - row.low) / row.latency);
  return median(widths);
}

void record_quality(Profile& profile, std::size_t unreached, double precision) {
  profile.quantities["sample_precision"] = {
      precision, "1", {}, {}, Origin::measured, "median half width of the 95 % intervals of the samples"};
  if (unreached > 0) {
    profile.notes.push_back(fmt::format("the budget ended before {} points were measured", unreached));
  }
  if (precision > kNoisy) {
    profile.notes.push_back(
        fmt::format("noisy: half of the points have a 95 % interval wider than +-{:.0f} %", 100 * precision));
  }
  profile.notes.emplace_back("the noise floor is unknown: nothing was measured again in a run of its own");
}

}  // namespace

GpuProfileOutcome profile_gpu(GpuDevice& device, const LaunchCosts* launch, const GpuProfileRequest& request) {
  GpuInfo info = device.info();
  info.environment.insert(request.environment.begin(), request.environment.end());
  const std::string today = fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::chrono::system_clock::now()));
  const auto describe = [&](const GpuSessionResult& result) {
    Profile profile = gpu_profile(info, result, launch, today);
    if (!request.name.empty()) profile.name = request.name;
    return profile;
  };
  const Profile machine = describe({});
  prepare_partial(request, machine);
  PartialProfile partial(request.folder, machine);

  GpuProfileOutcome outcome;
  outcome.resumed = partial.kept().size();
  GpuSessionOptions options = timing(request, request.clock ? request.clock : steady_seconds);
  options.checkpoint = [&partial](const std::vector<Measurement>& so_far) { partial.save(so_far); };
  GpuSessionResult result =
      run_gpu_session(device, partial.missing(request.points, static_cast<std::size_t>(request.rounds)), options);
  const bool budget_ended = result.rounds_finished == 0;
  partial.keep(result.measurements);
  outcome.points = partial.kept().size();
  outcome.complete = !result.interrupted;
  if (outcome.points == 0 && outcome.complete) {
    throw DeviceError("", fmt::format("no point could be measured: {}", fmt::join(result.skipped, "; ")),
                      "moecast doctor says what this machine lacks");
  }
  partial.save({});
  result.measurements = partial.kept();
  outcome.profile = describe(result);
  if (!outcome.complete) return outcome;

  std::size_t unreached = 0;
  if (budget_ended) {
    const std::vector<KernelPoint> missing = partial.missing(request.points, 1);
    unreached = static_cast<std::size_t>(std::count_if(
        missing.begin(), missing.end(), [&](const KernelPoint& point) { return device.refusal(point).empty(); }));
  }
  outcome.precision = precision_of(result.measurements);
  record_quality(outcome.profile, unreached, outcome.precision);
  write_profile(partial.folder(), outcome.profile);
  publish_profile(partial.folder(), request.folder);
  return outcome;
}

}  // namespace moecast
