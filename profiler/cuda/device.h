#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hwprofiles/measurement.h"
#include "models/core/units.h"

namespace moecast {

/// What a GPU says about itself, and what its timings depend on. Empty or nullopt = it does not say.
struct GpuInfo {
  std::string name;
  int major = 0;  ///< compute capability
  int minor = 0;
  int multiprocessors = 0;
  Bytes memory;
  Bytes l2_cache;
  std::optional<double> sm_clock_hz;               ///< highest
  std::optional<double> memory_clock_hz;           ///< highest
  std::optional<int> bus_bits;                     ///< width of the memory bus
  std::map<std::string, std::string> environment;  ///< driver, runtime, ecc, power_limit_w, clocks, libraries
};

/// A recorded row of calls that can be replayed: one CUDA graph on a real device.
class GpuProgram {
 public:
  virtual ~GpuProgram() = default;
  /// One replay of all calls; the time between device events around it.
  virtual Seconds replay() = 0;
};

/// The seam between the timing session and the hardware: tests put a device of their own behind it.
class GpuDevice {
 public:
  virtual ~GpuDevice() = default;
  [[nodiscard]] virtual GpuInfo info() const = 0;
  /// Why a point cannot be measured here (a library is missing, it does not fit), or empty.
  [[nodiscard]] virtual std::string refusal(const KernelPoint& point) const = 0;
  /// Weight copies that the point's calls go through: footprint over the bytes of one copy, at least 1.
  [[nodiscard]] virtual int copies(const KernelPoint& point) const = 0;
  /// `calls` calls in a row, each on the next copy of its ring. @throws DeviceError if the device refuses.
  virtual std::unique_ptr<GpuProgram> record(const KernelPoint& point, int calls) = 0;
  /// Overwrites more than the L2 cache holds and waits: what ran before leaves nothing behind.
  virtual void flush_cache() = 0;
};

/// Host time of one launch of an empty kernel into a stream, over `calls` launches, and the like.
struct LaunchCosts {
  Seconds stream_launch;  ///< device time per kernel when launched one by one
  Seconds host_launch;    ///< host time per launch call
  Seconds graph_node;     ///< device time per kernel inside a replayed graph
  Seconds graph_launch;   ///< host time of launching a graph of one node
};

/// Present when the program was built with CUDA and a device answers.
/// @param ordinal  number of the device, from 0. @param arena  most memory for weights; less if less is free.
/// @throws DeviceError: built without CUDA, no driver, no device, or too little memory left on it.
std::unique_ptr<GpuDevice> open_gpu(int ordinal, Bytes arena);

/// Launch overheads of the device that `open_gpu` opened. @throws DeviceError as above.
LaunchCosts measure_launch_costs();

}  // namespace moecast
