#include "sim/cost/kernel/kernel_law.h"

#include <array>
#include <charconv>
#include <cmath>

#include "models/core/error.h"

namespace moecast {
namespace {

struct NamedFormat {
  std::string_view name;
  KernelFormat format;
};

/// Weight bytes with scales (fp8_block: one fp32 a 128 x 128; mxfp4: one byte a 32; nvfp4: one a 16; int4: one bf16 a
/// 128), and the tensor-core rate of the arithmetic over bf16.
constexpr std::array<NamedFormat, 11> kFormats{{{"bfloat16", {2, 1}},
                                                {"float16", {2, 1}},
                                                {"fp8", {1, 2}},
                                                {"fp8_block", {1 + 4.0 / 16384, 2}},
                                                {"fp8_static", {1, 2}},
                                                {"int8_wo", {1, 1}},
                                                {"nvfp4", {0.5625, 4}},
                                                {"w4a16_mxfp4", {0.53125, 1}},
                                                {"w4a8_mxfp4_mxfp8", {0.53125, 2}},
                                                {"w4afp8", {0.515625, 2}},
                                                {"int4_wo", {0.515625, 1}}}};

double needed(const Profile& profile, const char* name) {
  const HardwareQuantity* found = profile.find(name);
  if (found == nullptr || !(found->value > 0)) {
    throw InputError(profile.name, std::string("has no ") + name + ", which kernel laws scale with",
                     "add it to profile.json with unit, origin and source");
  }
  return found->value;
}

/// From the generation that the profile names: "Hopper sm90".
bool switch_reduces(const Profile& profile) {
  constexpr int kFirst = 90;
  const auto found = profile.environment.find("architecture");
  if (found == profile.environment.end()) return false;
  const std::size_t at = found->second.find("sm");
  if (at == std::string::npos) return false;
  int generation = 0;
  const char* text = found->second.data();
  std::from_chars(text + at + 2, text + found->second.size(), generation);
  return generation >= kFirst;
}

}  // namespace

DeviceLimits device_limits(const Profile& profile, const std::vector<BackendRules>& backends) {
  const auto known = [&](const char* name) {
    const HardwareQuantity* found = profile.find(name);
    return found == nullptr ? 0.0 : found->value;
  };
  DeviceLimits limits{needed(profile, "memory_bandwidth"),
                      needed(profile, "peak_bf16"),
                      needed(profile, "l2_cache"),
                      needed(profile, "multiprocessors"),
                      known("scaleup_bandwidth_per_direction"),
                      known("scaleout_bandwidth_per_direction"),
                      switch_reduces(profile)};
  if (const HardwareQuantity* found = profile.find("scaleup_devices")) {
    limits.node_devices = static_cast<int>(std::clamp(found->value, 1.0, 4096.0));
  }
  for (const BackendRules& backend : backends) {
    limits.tuned.insert(limits.tuned.end(), backend.tuned.begin(), backend.tuned.end());
  }
  return limits;
}

MachineGrowth machine_growth(double machine, double largest, double half_width) {
  if (machine <= largest) return {};
  // Faster than thought is bounded by the links, slower by nothing: doublings add up on that side only.
  const double doublings = std::log2(machine / largest);
  return {half_width * std::sqrt(doublings), half_width * doublings};
}

std::optional<KernelFormat> kernel_format(std::string_view dtype) {
  // Of "bfloat16+fp8" (arithmetic and KV cache) the first is what the tensor cores multiply.
  const std::string_view first = dtype.substr(0, dtype.find('+'));
  for (const NamedFormat& known : kFormats) {
    if (known.name == first) return known.format;
  }
  return std::nullopt;
}

void KernelLaw::prepare(const double* logs, double* prepared) const {
  for (std::size_t i = 0; i < coefficients().size(); ++i) prepared[i] = std::exp(logs[i]);
}

std::vector<double> KernelLaw::fixed_nodes(int /*axis*/) const { return {}; }

std::shared_ptr<const KernelLaw> make_kernel_law(const KernelKey& key, const DeviceLimits& device,
                                                 std::string* reason) {
  std::optional<KernelFormat> format = kernel_format(key.dtype);
  if (!format && key.dtype.empty()) format = KernelFormat{};
  if (!format) {
    if (reason != nullptr) *reason = "\"" + key.dtype + "\" is not a known format";
    return nullptr;
  }
  const std::string& layout = key.layout;
  if (is_communication(layout)) {
    if (device.link == 0) {
      if (reason != nullptr) *reason = "the profile has no scaleup_bandwidth_per_direction";
      return nullptr;
    }
    if (layout == "wideep_deepep_ll") return make_low_latency_law(key, device);
    if (layout == "wideep_deepep_normal") return make_high_throughput_law(key, device);
    if (layout == "nvlink_one_sided") return make_one_sided_law(key, device);
    return make_collective_law(key, device);
  }
  if (layout == "moe" || layout.starts_with("wideep_")) return make_moe_law(key, device, *format);
  if (layout == "gemm") return make_dense_law(key, device, *format);
  if (layout.ends_with("_attention") || layout.ends_with("_mla")) return make_attention_law(key, device, *format);
  return make_streaming_law(key, device, *format);
}

}  // namespace moecast
