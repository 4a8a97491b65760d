#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>

#include "models/core/error.h"
#include "profiler/cuda/device.h"
#include "profiler/cuda/kernels.cuh"
#include "profiler/cuda/launches.cuh"
#include "profiler/cuda/plan.h"
#include "profiler/cuda/presence.h"

namespace moecast {
namespace {

using gpu::check;

constexpr std::size_t kInputBytes = std::size_t{1300} << 20;
constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;  // cuBLAS asks for 32 MiB on Hopper
constexpr std::size_t kPinnedBytes = std::size_t{256} << 20;
constexpr std::size_t kLeastArena = std::size_t{2} << 30;  // one cold ring, 1.5e9 B
constexpr std::size_t kLeftFree = std::size_t{1} << 30;    // graphs, modules, launch measurements
constexpr std::size_t kFlushFactor = 3;  // caches are divided in halves: more than twice their size goes through both
/// Time that the stream waits before a row of calls that cannot be captured, so that the host is ahead of it.
constexpr double kHeadStartOfACall = 60e-6;
constexpr double kMostHeadStart = 20e-3;

class Event {
 public:
  Event() { check(cudaEventCreate(&event_), "making an event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "recording an event"); }
  Seconds since(const Event& start) const {
    check(cudaEventSynchronize(event_), "waiting for the device");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, start.event_, event_), "reading an event");
    return Seconds(1e-3 * static_cast<double>(milliseconds));
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Calls captured into one graph: the host launches once, the device runs them without gaps of launching.
class GraphProgram final : public GpuProgram {
 public:
  GraphProgram(cudaStream_t stream, const std::function<void()>& calls) : stream_(stream) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a capture");
    cudaGraph_t graph = nullptr;
    try {
      calls();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "ending a capture");
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "instantiating a graph");
    cudaGraphUpload(graph_, stream);
  }
  ~GraphProgram() override { cudaGraphExecDestroy(graph_); }
  Seconds replay() override {
    start_.record(stream_);
    check(cudaGraphLaunch(graph_, stream_), "launching a graph");
    end_.record(stream_);
    return end_.since(start_);
  }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
  Event start_;
  Event end_;
};

/// Calls launched one by one behind a wait on the device: for libraries that copy host memory while they launch.
class StreamProgram final : public GpuProgram {
 public:
  StreamProgram(cudaStream_t stream, int calls, std::function<void()> launch)
      : stream_(stream), head_start_(std::min(kMostHeadStart, kHeadStartOfACall * calls)), launch_(std::move(launch)) {}
  Seconds replay() override {
    gpu::wait(head_start_, stream_);
    start_.record(stream_);
    launch_();
    end_.record(stream_);
    const Seconds time = end_.since(start_);
    check(cudaGetLastError(), "running kernels");
    return time;
  }

 private:
  cudaStream_t stream_;
  double head_start_;
  std::function<void()> launch_;
  Event start_;
  Event end_;
};

class CudaDevice final : public GpuDevice {
 public:
  CudaDevice(int ordinal, Bytes arena) : ordinal_(ordinal) {
    check(cudaSetDevice(ordinal), "choosing the device");
    check(cudaGetDeviceProperties(&properties_, ordinal), "asking for the device's properties");
    check(cudaDeviceGetAttribute(&sm_khz_, cudaDevAttrClockRate, ordinal), "asking for clocks");
    check(cudaDeviceGetAttribute(&memory_khz_, cudaDevAttrMemoryClockRate, ordinal), "asking for clocks");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
    allocate(affordable(static_cast<std::size_t>(arena.value())));
    try {
      cublas_ = std::make_unique<Cublas>();
      cublas_->attach(stream_, buffers_.workspace.data(), buffers_.workspace.size());
    } catch (const DeviceError& error) {
      cublas_.reset();
      cublas_problem_ = error.problem();
    }
    context_ = {&buffers_, cublas_.get(), properties_.multiProcessorCount, stream_};
  }
  ~CudaDevice() override {
    cublas_.reset();
    if (buffers_.pinned != nullptr) cudaFreeHost(buffers_.pinned);
    cudaStreamDestroy(stream_);
  }

  [[nodiscard]] GpuInfo info() const override {
    GpuInfo info;
    info.name = properties_.name;
    info.major = properties_.major;
    info.minor = properties_.minor;
    info.multiprocessors = properties_.multiProcessorCount;
    info.memory = Bytes(static_cast<double>(properties_.totalGlobalMem));
    info.l2_cache = Bytes(properties_.l2CacheSize);
    if (sm_khz_ > 0) info.sm_clock_hz = 1e3 * sm_khz_;
    if (memory_khz_ > 0) info.memory_clock_hz = 1e3 * memory_khz_;
    if (properties_.memoryBusWidth > 0) info.bus_bits = properties_.memoryBusWidth;
    char bus[32] = "";
    if (cudaDeviceGetPCIBusId(bus, sizeof bus, ordinal_) == cudaSuccess) info.environment["pci_bus_id"] = bus;
    info.environment["ecc"] = properties_.ECCEnabled != 0 ? "on" : "off";
    int version = 0;
    if (cudaRuntimeGetVersion(&version) == cudaSuccess) info.environment["cuda_runtime"] = cuda_version_text(version);
    if (cudaDriverGetVersion(&version) == cudaSuccess) info.environment["cuda_of_driver"] = cuda_version_text(version);
    info.environment["cublas"] = cublas_ ? cublas_->version() : "missing: " + cublas_problem_;
    return info;
  }

  [[nodiscard]] std::string refusal(const KernelPoint& point) const override {
    const bool needs_cublas = point.kind == OperatorKind::gemm || point.kind == OperatorKind::fused_moe;
    if (needs_cublas && !cublas_) return cublas_problem_;
    if (point.backend == kGpuGroupedBackend && !cublas_->has_grouped()) return "this cuBLAS has no grouped GEMM";
    const gpu::Needs needs = gpu::needs_of(point);
    const bool fits = needs.ring <= static_cast<double>(buffers_.ring.size()) &&
                      std::max({needs.input, needs.middle, needs.output}) <= static_cast<double>(kInputBytes);
    if (!fits) return "does not fit into the memory set aside";
    if (point.kind == OperatorKind::weight_transfer && point.shape.bytes > static_cast<std::int64_t>(kPinnedBytes)) {
      return "is more than the pinned host memory set aside";
    }
    return {};
  }

  [[nodiscard]] int copies(const KernelPoint& point) const override { return gpu_copies(point); }

  std::unique_ptr<GpuProgram> record(const KernelPoint& point, int calls) override {
    check(cudaGetLastError(), "an earlier kernel");
    const int ring = copies(point);
    const gpu::Launch launch = gpu::make_launch(point, ring, context_);
    launch(0);  // modules load and libraries choose kernels outside of captures and timings
    check(cudaStreamSynchronize(stream_), "running a first call");
    const auto all = [launch, calls, ring] {
      for (int i = 0; i < calls; ++i) launch(i % ring);
    };
    if (point.backend == kGpuGroupedBackend) return std::make_unique<StreamProgram>(stream_, calls, all);
    return std::make_unique<GraphProgram>(stream_, all);
  }

  void flush_cache() override {
    const std::size_t bytes = std::min(kInputBytes, kFlushFactor * static_cast<std::size_t>(properties_.l2CacheSize));
    check(cudaMemsetAsync(buffers_.output.data(), 0x3c, bytes, stream_), "flushing the cache");
    check(cudaStreamSynchronize(stream_), "flushing the cache");
  }

 private:
  /// As much of the arena as the device has free beside the buffers that every point needs.
  static std::size_t affordable(std::size_t arena) {
    std::size_t free = 0;
    std::size_t total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for free memory");
    constexpr std::size_t kBeside = 4 * kInputBytes + kWorkspaceBytes + kLeftFree;
    if (free < kBeside + kLeastArena) {
      throw DeviceError("",
                        gigabytes(free) + " of the GPU's " + gigabytes(total) + " are free, measuring needs " +
                            gigabytes(kBeside + kLeastArena),
                        "end the programs that nvidia-smi shows on it");
    }
    return std::min(arena, free - kBeside);
  }

  static std::string gigabytes(std::size_t bytes) {
    const std::size_t tenths = bytes / 100'000'000;
    return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " GB";
  }

  /// Random data everywhere: arithmetic on zeros draws less power and runs faster than it should.
  void allocate(std::size_t arena) {
    buffers_.ring = gpu::DeviceBuffer(arena);
    for (gpu::DeviceBuffer* buffer : {&buffers_.input, &buffers_.middle, &buffers_.activated, &buffers_.output}) {
      *buffer = gpu::DeviceBuffer(kInputBytes);
    }
    buffers_.workspace = gpu::DeviceBuffer(kWorkspaceBytes);
    std::uint32_t seed = 1;
    for (const gpu::DeviceBuffer* buffer :
         {&buffers_.ring, &buffers_.input, &buffers_.middle, &buffers_.activated, &buffers_.output}) {
      gpu::fill_random(buffer->data(), buffer->size(), seed++, stream_);
    }
    check(cudaStreamSynchronize(stream_), "filling device memory");
    check(cudaMallocHost(&buffers_.pinned, kPinnedBytes), "allocating pinned memory");
    buffers_.pinned_bytes = kPinnedBytes;
    std::fill_n(static_cast<std::uint32_t*>(buffers_.pinned), kPinnedBytes / 4, 0x3f803f00U);
  }

  int ordinal_;
  cudaDeviceProp properties_{};
  int sm_khz_ = 0;
  int memory_khz_ = 0;
  cudaStream_t stream_ = nullptr;
  gpu::Buffers buffers_;
  std::unique_ptr<Cublas> cublas_;
  std::string cublas_problem_;
  gpu::LaunchContext context_;
};

}  // namespace

GpuPresence look_for_gpu() {
  GpuPresence presence;
  presence.built = true;
  cudaRuntimeGetVersion(&presence.runtime);
  cudaDriverGetVersion(&presence.driver);  // stays 0 without a driver
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) presence.visible = visible;
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) {
    presence.refusal = cudaGetErrorString(status);
    cudaGetLastError();  // the next call starts clean
    return presence;
  }
  for (int i = 0; i < devices; ++i) {
    cudaDeviceProp properties{};
    const bool known = cudaGetDeviceProperties(&properties, i) == cudaSuccess;
    presence.devices.emplace_back(known ? properties.name : "unknown");
  }
  return presence;
}

std::unique_ptr<GpuDevice> open_gpu(int ordinal, Bytes arena) {
  if (const auto obstacle = gpu_obstacle(look_for_gpu(), ordinal)) {
    throw DeviceError("", obstacle->problem, obstacle->advice);
  }
  return std::make_unique<CudaDevice>(ordinal, arena);
}

}  // namespace moecast
