#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/plan/operator.h"

namespace moecast {

/// One kernel call to be timed, or that was timed: the key and the features of a cost model.
struct KernelPoint {
  OperatorKind kind = OperatorKind::gemm;
  std::string backend;  ///< onednn, openblas, eigen, native (our own loops), vllm-0.24.0/triton, ...
  DType dtype = DType::fp32;
  int threads = 1;
  OperatorShape shape;
  Bytes footprint;         ///< bytes touched between two uses of the same weights (a ring); 0 = warm
  Bytes input_footprint;   ///< bytes touched between two uses of the same input rows; 0 = just written
  Bytes output_footprint;  ///< bytes touched between two uses of the memory that takes the result; 0 = just used
  friend bool operator==(const KernelPoint&, const KernelPoint&) = default;
};

/// One timed run of calls, as the clock gave it.
struct RawSample {
  int round = 0;
  int calls = 0;
  double wall_s = 0;  ///< per call
  double cpu_s = 0;   ///< of the calling thread, per call
  std::int64_t involuntary_switches = 0;
  friend bool operator==(const RawSample&, const RawSample&) = default;
};

/// What was measured at a point.
struct Measurement {
  KernelPoint point;
  Seconds latency;  ///< median over interleaved rounds of the mean of a round's samples
  Seconds low;      ///< 95 % interval of that median
  Seconds high;
  int samples = 0;
  int preempted = 0;            ///< samples with involuntary context switches
  std::vector<double> round_s;  ///< mean sample of each round, in seconds, in round order
  std::vector<RawSample> raw;   ///< every sample; empty in profiles that kept none
};

}  // namespace moecast
