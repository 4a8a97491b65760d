#include "profiler/cuda/record.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "profiler/cuda/plan.h"

namespace moecast {
namespace {

struct NamedDatasheet {
  const char* name;  ///< a part of the driver's name
  GpuDatasheet sheet;
};

// NVIDIA H100 and H200 datasheets: peaks are quoted with sparsity, halved here. H100 SXM: 3.35 TB/s, H200: 4.8 TB/s.
const std::array kDatasheets{
    NamedDatasheet{
        "H100 80GB HBM3",
        {"NVIDIA H100 datasheet (SXM), dense", BytesPerSecond(3.35e12), FlopsPerSecond(989.4e12),
         FlopsPerSecond(1978.9e12), FlopsPerSecond(66.9e12), FlopsPerSecond(494.7e12), BytesPerSecond(450e9)}},
    NamedDatasheet{
        "H200",
        {"NVIDIA H200 datasheet (SXM), dense", BytesPerSecond(4.8e12), FlopsPerSecond(989.4e12),
         FlopsPerSecond(1978.9e12), FlopsPerSecond(66.9e12), FlopsPerSecond(494.7e12), BytesPerSecond(450e9)}}};

void set(Profile& profile, const std::string& key, double value, const char* unit, Origin origin,
         const std::string& source) {
  HardwareQuantity quantity;
  quantity.value = value;
  quantity.unit = unit;
  quantity.origin = origin;
  quantity.source = source;
  profile.quantities[key] = quantity;
}

/// A rate from a measured time, with its interval turned round.
void set_rate(Profile& profile, const std::string& key, double work, const Measurement& measured, const char* unit) {
  HardwareQuantity quantity;
  quantity.value = work / measured.latency.value();
  quantity.low = work / measured.high.value();
  quantity.high = work / measured.low.value();
  quantity.unit = unit;
  quantity.origin = Origin::measured;
  quantity.source = std::string(to_string(measured.point.kind)) + " of " + measured.point.backend + ", " +
                    std::to_string(measured.samples) + " samples";
  profile.quantities[key] = quantity;
}

void add_driver_facts(Profile& profile, const GpuInfo& info) {
  const std::string source = "the CUDA driver";
  set(profile, "memory_capacity", info.memory.value(), "B", Origin::measured, source);
  set(profile, "l2_cache", info.l2_cache.value(), "B", Origin::measured, source);
  set(profile, "multiprocessors", info.multiprocessors, "1", Origin::measured, source);
  set(profile, "compute_capability", info.major + 0.1 * info.minor, "1", Origin::measured, source);
  if (info.sm_clock_hz) set(profile, "sm_clock_max", *info.sm_clock_hz, "Hz", Origin::measured, source);
  if (info.memory_clock_hz) set(profile, "memory_clock_max", *info.memory_clock_hz, "Hz", Origin::measured, source);
}

void add_datasheet(Profile& profile, const std::string& device_name) {
  const auto sheet = gpu_datasheet(device_name);
  if (!sheet) {
    profile.notes.push_back("no datasheet of \"" + device_name + "\" is known: peaks are missing");
    return;
  }
  const auto add = [&](const char* key, double value, const char* unit) {
    set(profile, key, value, unit, Origin::datasheet, sheet->source);
  };
  add("memory_bandwidth", sheet->memory_bandwidth.value(), "B/s");
  add("peak_bf16", sheet->peak_bf16.value(), "FLOP/s");
  add("peak_fp8", sheet->peak_fp8.value(), "FLOP/s");
  add("peak_fp32", sheet->peak_fp32.value(), "FLOP/s");
  add("peak_tf32", sheet->peak_tf32.value(), "FLOP/s");
  add("link_bandwidth", sheet->link_bandwidth.value(), "B/s");
}

std::string gemm_key(const KernelPoint& point) {
  return point.backend == kGpuTf32Backend ? "gemm_rate_tf32" : "gemm_rate_" + std::string(to_string(point.dtype));
}

void add_measured(Profile& profile, const std::vector<Measurement>& measurements) {
  std::map<std::string, std::pair<double, const Measurement*>> best;
  for (const Measurement& measured : measurements) {
    const OperatorShape& s = measured.point.shape;
    const auto bytes = static_cast<double>(s.bytes);
    switch (measured.point.kind) {
      case OperatorKind::read:
        set_rate(profile, "read_bandwidth_" + std::to_string(s.bytes) + "_bytes", bytes, measured, "B/s");
        break;
      case OperatorKind::copy:
        set_rate(profile, "copy_bandwidth_" + std::to_string(2 * s.bytes) + "_bytes", 2 * bytes, measured, "B/s");
        break;
      case OperatorKind::weight_transfer: {
        const auto [entry, first] = best.try_emplace(kHostBandwidth, bytes, &measured);
        if (!first && bytes > entry->second.first) entry->second = {bytes, &measured};
        break;
      }
      case OperatorKind::gemm: {
        const double flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
        const double rate = flops / measured.latency.value();
        const auto [entry, first] = best.try_emplace(gemm_key(measured.point), rate, &measured);
        if (!first && rate > entry->second.first) entry->second = {rate, &measured};
        break;
      }
      default: break;
    }
  }
  for (const auto& [key, entry] : best) {
    if (key == kHostBandwidth) {
      set_rate(profile, key, entry.first, *entry.second, "B/s");
      continue;
    }
    set_rate(profile, key, entry.first * entry.second->latency.value(), *entry.second, "FLOP/s");
  }
}

void add_launch_costs(Profile& profile, const LaunchCosts& launch) {
  const std::string source = "empty kernels, 1000 in a row, least of 11 runs";
  set(profile, "launch_stream", launch.stream_launch.value(), "s", Origin::measured, source);
  set(profile, "launch_host", launch.host_launch.value(), "s", Origin::measured, source);
  set(profile, "launch_graph_node", launch.graph_node.value(), "s", Origin::measured, source);
  set(profile, "launch_graph", launch.graph_launch.value(), "s", Origin::measured, source);
}

void add_backends(Profile& profile, const GpuInfo& info, const std::vector<Measurement>& measurements) {
  const auto library = info.environment.find("cublas");
  for (const Measurement& measured : measurements) {
    const KernelPoint& point = measured.point;
    const bool known = std::any_of(
        profile.backends.begin(), profile.backends.end(),
        [&](const ProfileBackend& backend) { return backend.name == point.backend && backend.dtype == point.dtype; });
    if (known) continue;
    ProfileBackend backend;
    backend.name = point.backend;
    backend.dtype = point.dtype;
    if (point.backend.starts_with("cublas") && library != info.environment.end()) backend.library = library->second;
    if (point.backend == kGpuTf32Backend) backend.implementation = "TF32 tensor cores";
    profile.backends.push_back(backend);
  }
}

}  // namespace

std::optional<GpuDatasheet> gpu_datasheet(const std::string& device_name) {
  for (const NamedDatasheet& entry : kDatasheets) {
    if (device_name.ends_with(entry.name)) return entry.sheet;
  }
  return std::nullopt;
}

std::string gpu_profile_name(const GpuInfo& info) {
  std::string name;
  for (const char c : info.name) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  while (name.ends_with('-')) name.pop_back();
  return name.empty() ? "gpu" : name;
}

Profile gpu_profile(const GpuInfo& info, const GpuSessionResult& result, const LaunchCosts* launch,
                    const std::string& created) {
  Profile profile;
  profile.name = gpu_profile_name(info);
  profile.device = "gpu";
  profile.created = created;
  profile.environment = info.environment;
  profile.environment["device_name"] = info.name;
  add_driver_facts(profile, info);
  add_datasheet(profile, info.name);
  add_measured(profile, result.measurements);
  if (launch != nullptr) add_launch_costs(profile, *launch);
  add_backends(profile, info, result.measurements);
  for (const std::string& reason : result.skipped) profile.notes.push_back("left out: " + reason);
  if (result.interrupted)
    profile.notes.emplace_back("measuring was interrupted: points have fewer rounds than planned");
  profile.notes.emplace_back(
      "latencies are those of calls inside a replayed CUDA graph; cublas-grouped calls are queued into a stream "
      "instead");
  profile.notes.emplace_back("fused_moe has one draw of uniform routing; its rows are laid out already (no permute)");
  return profile;
}

}  // namespace moecast
