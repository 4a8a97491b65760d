#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/core/units.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"

namespace moecast {

/// A MoE layer or small model that a machine executed while its kernels were timed.
struct ExecutedLayer {
  std::string stratum;  ///< "onednn fp32, 1 thread", "2 threads", "per-expert-loop", "transformers", ...
  Architecture architecture;
  Deployment deployment;
  Workload workload;  ///< with the rows that its experts really got, where it is a single MoE block
  Seconds latency;    ///< median over interleaved rounds, as of kernels
  Seconds low;        ///< 95 % interval of that median
  Seconds high;
  int samples = 0;
  int preempted = 0;            ///< samples with involuntary context switches
  std::vector<double> round_s;  ///< mean sample of each round, in seconds, in round order
};

/// samples/layers.jsonl.gz: one JSON object a line, the model in the schema of models/architecture.
/// @throws InputError with line and JSON pointer: not JSON, unknown or missing field, latency not above zero or outside
/// its interval, a model that is none.
std::vector<ExecutedLayer> parse_layers_text(std::string_view text, const std::string& where);
std::string layers_text(const std::vector<ExecutedLayer>& layers);

/// Layers of a profile folder; empty when it holds none.
std::vector<ExecutedLayer> read_layers(const std::string& folder);
/// Writes or replaces the file atomically. @throws DeviceError on a full or read-only disk.
void write_layers(const std::string& folder, const std::vector<ExecutedLayer>& layers);

}  // namespace moecast
