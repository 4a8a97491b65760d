#pragma once
#include <map>
#include <string>

namespace moecast {

/// What `nvidia-smi --query-gpu` is asked for.
inline constexpr const char* kGpuStateFields =
    "driver_version,vbios_version,power.limit,clocks.max.sm,clocks.max.mem,clocks.sm,clocks.mem,temperature.gpu,"
    "clocks_event_reasons.active,persistence_mode,mig.mode.current";

/// One line of its values, separated by ", ", as environment entries; "[N/A]" and the like are left out.
std::map<std::string, std::string> parse_gpu_state(const std::string& line);

/// Asks `nvidia-smi` for the GPU at a PCI address ("0000:1B:00.0"); empty when it is missing, slow or refuses.
std::map<std::string, std::string> read_gpu_state(const std::string& pci_bus_id);

}  // namespace moecast
