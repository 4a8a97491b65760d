#pragma once
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hwprofiles/measurement.h"
#include "models/core/json.h"
#include "models/core/origin.h"
#include "models/core/row_bucket.h"
#include "models/core/weight_packing.h"

namespace moecast {

inline constexpr int kProfileSchemaVersion = 1;
/// Quantity of a GPU: bytes per second of large copies from the host's (pinned) memory.
inline constexpr const char* kHostBandwidth = "host_bandwidth_per_direction";

/// A stored number of a machine: never without unit, origin and source.
struct HardwareQuantity {
  double value = 0;
  std::string unit;           ///< B, B/s, FLOP/s, s, Hz, W or 1 (a ratio or a count)
  std::optional<double> low;  ///< 95 % interval, same unit
  std::optional<double> high;
  Origin origin = Origin::assumed;
  std::string source;  ///< "datasheet H200 SXM rev 3", "read microbenchmark, 30 samples"
};

/// One (backend, dtype) that the profile holds samples of.
struct ProfileBackend {
  std::string name;  ///< key of KernelPoint::backend
  DType dtype = DType::fp32;
  std::string library;         ///< "oneDNN 2.6.3"
  std::string implementation;  ///< kernel family that the library chose; empty = unknown
  RowBucket row_bucket = RowBucket::exact;
  WeightPacking packing = WeightPacking::ahead;
};

/// profile.json: what a machine is. The samples and the calibration lie beside it.
struct Profile {
  std::string name;
  std::string device;                                  ///< cpu or gpu
  std::string created;                                 ///< ISO date, UTC
  std::map<std::string, HardwareQuantity> quantities;  ///< "memory_capacity", "memory_bandwidth", "peak_fp32", ...
  std::map<std::string, std::string> environment;      ///< what timings depend on, unknown left out
  std::vector<ProfileBackend> backends;
  std::vector<std::string> notes;  ///< noise, defects, what is missing
  std::string sister;  ///< profile of the same generation whose kernels fill the gaps of this one; empty = none

  [[nodiscard]] const HardwareQuantity* find(const std::string& quantity) const;
};

/// A stored number: {value, unit, low, high, origin, source}. @throws InputError naming what is missing or no unit.
HardwareQuantity parse_quantity(const JsonView& view);

/// @param text, where  the JSON and what to call it in errors.
/// @throws InputError: not JSON, unknown or missing field, unknown unit, another schema version, value not finite.
Profile parse_profile_text(std::string_view text, const std::string& where);
std::string profile_text(const Profile& profile);

/// Reads FOLDER/profile.json. @throws InputError as above.
Profile read_profile(const std::string& folder);
/// Makes the folder and writes profile.json atomically. @throws DeviceError on a full or read-only disk.
void write_profile(const std::string& folder, const Profile& profile);

/// samples/<operator>.csv.gz. Columns: backend, dtype, threads, the shape columns of the operator, footprint_bytes,
/// input_footprint_bytes, output_footprint_bytes, latency_s, low_s, high_s, samples, preempted, round_s (seconds,
/// separated by spaces), raw_samples (round:calls:wall_s:cpu_s:involuntary_switches of each sample, separated by
/// spaces; may be absent).
/// @throws InputError with line and column: missing or unknown column, latency not above zero, interval that does not
/// hold the latency, shape below zero, unknown dtype.
std::vector<Measurement> parse_samples_text(OperatorKind kind, std::string_view text, const std::string& where);
std::string samples_text(OperatorKind kind, const std::vector<Measurement>& measurements);

/// All samples of a profile folder, by operator name; empty when there is no samples folder.
std::vector<Measurement> read_samples(const std::string& folder);
/// Replaces the sample files of the kinds that occur, each atomically.
void write_samples(const std::string& folder, const std::vector<Measurement>& measurements);

std::string_view to_string(RowBucket rule);
std::string_view to_string(WeightPacking rule);

}  // namespace moecast
