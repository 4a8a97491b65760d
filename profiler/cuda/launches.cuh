#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <string>
#include <vector>

#include "hwprofiles/measurement.h"
#include "profiler/cuda/cublas.h"

namespace moecast::gpu {

/// @throws DeviceError with the runtime's own words unless `status` is success.
void check(cudaError_t status, const char* what);

/// Device memory that lives as long as the object.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::size_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();
  [[nodiscard]] char* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  char* data_ = nullptr;
  std::size_t size_ = 0;
};

/// What all points share: weights and row-kernel rings in `ring`, GEMM inputs and results in the others.
struct Buffers {
  DeviceBuffer ring;
  DeviceBuffer input;
  DeviceBuffer middle;
  DeviceBuffer activated;
  DeviceBuffer output;
  DeviceBuffer workspace;  ///< of cuBLAS
  void* pinned = nullptr;
  std::size_t pinned_bytes = 0;
};

struct LaunchContext {
  const Buffers* buffers = nullptr;
  Cublas* cublas = nullptr;  ///< null when the library is missing
  int multiprocessors = 0;
  cudaStream_t stream = nullptr;
};

/// Bytes that a point needs in each of the shared buffers; refusal() compares them with what there is.
struct Needs {
  double ring = 0;
  double input = 0;
  double middle = 0;
  double output = 0;
};
Needs needs_of(const KernelPoint& point);

/// Rows of each expert (only those that get any): one draw of uniform routing, the same for every call of the shape.
std::vector<std::int64_t> expert_rows(const OperatorShape& shape);

/// One call of a point on the given copy of its ring, launched into the context's stream.
using Launch = std::function<void(int copy)>;

/// @param copies  of the ring; grouped calls keep their pointers on the device for all of them.
/// @throws DeviceError for a kind or backend without an implementation.
Launch make_launch(const KernelPoint& point, int copies, const LaunchContext& context);

}  // namespace moecast::gpu
