#include "tools/cli/gpu_profile_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "profiler/cuda/plan.h"
#include "profiler/cuda/presence.h"
#include "profiler/cuda/record.h"
#include "profiler/cuda/state.h"
#include "profiler/environment.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/gpu_profile.h"
#include "tools/cli/output.h"
#include "tools/cli/progress_bar.h"
#include "tools/cli/query_options.h"
#include "tools/loop/interrupt.h"
#include "tools/loop/machine_record.h"

namespace moecast {
namespace {

int ordinal_of(const std::string& device) {
  if (!device.starts_with("cuda:")) return 0;
  const std::string digits = device.substr(5);
  if (digits.empty() || digits.size() > 3 || digits.find_first_not_of("0123456789") != std::string::npos) {
    throw UsageError("--device", fmt::format("\"{}\" is not a device", device), "cuda or cuda:1");
  }
  return std::stoi(digits);
}

std::vector<KernelPoint> wanted_points(const GpuPlanOptions& plan, const std::string& dtypes) {
  std::vector<KernelPoint> points = gpu_points(plan);
  if (dtypes.empty()) return points;
  std::vector<DType> wanted;
  for (const std::string& word : split_list(dtypes, "--dtype")) {
    const DType dtype = parse_dtype_flag(word);
    if (std::none_of(points.begin(), points.end(), [&](const KernelPoint& p) { return p.dtype == dtype; })) {
      throw UsageError("--dtype", fmt::format("{} is not measured on a GPU", word), "bf16 and fp32 are");
    }
    wanted.push_back(dtype);
  }
  std::erase_if(points,
                [&](const KernelPoint& p) { return std::find(wanted.begin(), wanted.end(), p.dtype) == wanted.end(); });
  return points;
}

std::map<std::string, std::string> surroundings(const GpuInfo& info) {
  std::map<std::string, std::string> found;
  for (const auto& [key, value] : environment_record(read_environment())) found["host_" + key] = value;
  const auto address = info.environment.find("pci_bus_id");
  if (address != info.environment.end()) found.merge(read_gpu_state(address->second));
  return found;
}

std::string as_text(const GpuProfileOutcome& outcome, const std::string& folder) {
  std::string text = fmt::format("profile   {}\n", folder);
  text += fmt::format("device    {}\n", outcome.profile.environment.at("device_name"));
  text += fmt::format("points    {} measured{}\n", outcome.points,
                      outcome.resumed > 0 ? fmt::format(", {} resumed", outcome.resumed) : "");
  text +=
      fmt::format("precision {} (median half width of a point's 95 % interval)\n", format_percent(outcome.precision));
  for (const std::string& line : outcome.profile.notes) text += fmt::format("note      {}\n", line);
  return text + fmt::format(
                    "next      the samples are in {}/samples; predict and validate cannot use them: no cost "
                    "model is fitted to GPU kernels\n",
                    folder);
}

Json as_json(const GpuProfileOutcome& outcome, const std::string& folder) {
  Json quantities = Json::object();
  for (const auto& [key, quantity] : outcome.profile.quantities) quantities[key] = quantity.value;
  return {{"folder", folder},
          {"name", outcome.profile.name},
          {"device", outcome.profile.environment.at("device_name")},
          {"points", outcome.points},
          {"resumed_points", outcome.resumed},
          {"precision_ratio", outcome.precision},
          {"complete", outcome.complete},
          {"calibrated", false},
          {"quantities", quantities},
          {"notes", outcome.profile.notes}};
}

Seconds budget_of(const std::string& text) {
  const Seconds budget = parse_seconds(text, "--budget");
  if (budget.value() < 5 || budget.value() > 86400) {
    throw UsageError("--budget", fmt::format("{} is outside 5s to 24h", text), "4min is the default of a GPU");
  }
  return budget;
}

}  // namespace

bool is_gpu_device(const std::string& device) {
  return device == "cuda" || device == "gpu" || device.starts_with("cuda:");
}

int run_gpu_profile(const GpuProfileOptions& options) {
  const InterruptGuard guard;  // before any library starts threads
  const Format format = parse_format(options.format);
  const int ordinal = ordinal_of(options.device);
  const GpuPlanOptions plan;
  GpuProfileRequest request;
  request.budget = budget_of(options.budget);
  request.points = wanted_points(plan, options.dtype);
  request.fresh = options.fresh;
  if (const auto obstacle = gpu_obstacle(look_for_gpu(), ordinal)) {
    throw DeviceError("--device " + options.device, obstacle->problem, obstacle->advice);
  }
  const auto device = open_gpu(ordinal, Bytes(plan.memory_bytes));
  const GpuInfo info = device->info();
  const LaunchCosts launch = measure_launch_costs();
  request.name = options.name.empty() ? gpu_profile_name(info) : options.name;
  request.folder = options.out.empty() ? find_data_folders("").own + "/" + request.name : options.out;
  request.environment = surroundings(info);
  request.interrupted = &InterruptGuard::flag();
  ProgressBar bar;
  request.progress = [&bar](const std::string& stage, double done, Seconds left) { bar.update(stage, done, left); };
  const GpuProfileOutcome outcome = profile_gpu(*device, &launch, request);
  bar.clear();
  if (!outcome.complete) {
    note(fmt::format("interrupted: {} points are kept in {}.partial; the same command goes on from there",
                     outcome.points, request.folder));
    return 130;
  }
  const bool table = format == Format::table || format == Format::md;
  write_stdout(table ? as_text(outcome, request.folder)
                     : render_records({as_json(outcome, request.folder)}, format, true));
  return 0;
}

}  // namespace moecast
