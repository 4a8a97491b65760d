#include <chrono>

#include "profiler/cuda/device.h"
#include "profiler/cuda/kernels.cuh"
#include "profiler/cuda/launches.cuh"

namespace moecast {
namespace {

using gpu::check;

constexpr int kCalls = 1000;
constexpr int kRepeats = 11;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Smallest of several runs: launching has a floor, everything above it is disturbance.
template <typename Work>
double least_time(cudaStream_t stream, const Work& work, bool wait_for_device) {
  double least = 1e9;
  for (int i = 0; i < kRepeats; ++i) {
    check(cudaStreamSynchronize(stream), "waiting for the device");
    const double start = now();
    work();
    if (wait_for_device) check(cudaStreamSynchronize(stream), "waiting for the device");
    least = std::min(least, now() - start);
  }
  check(cudaStreamSynchronize(stream), "waiting for the device");
  return least;
}

cudaGraphExec_t empty_graph(cudaStream_t stream, int nodes) {
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a capture");
  for (int i = 0; i < nodes; ++i) gpu::empty(stream);
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream, &graph), "ending a capture");
  cudaGraphExec_t executable = nullptr;
  check(cudaGraphInstantiate(&executable, graph, 0), "instantiating a graph");
  check(cudaGraphDestroy(graph), "dropping a graph");
  return executable;
}

}  // namespace

LaunchCosts measure_launch_costs() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  const auto launch_all = [&] {
    for (int i = 0; i < kCalls; ++i) gpu::empty(stream);
  };
  LaunchCosts costs;
  costs.host_launch = Seconds(least_time(stream, launch_all, false) / kCalls);
  costs.stream_launch = Seconds(least_time(stream, launch_all, true) / kCalls);
  const cudaGraphExec_t many = empty_graph(stream, kCalls);
  const cudaGraphExec_t one = empty_graph(stream, 1);
  const auto replay = [&](cudaGraphExec_t graph) { check(cudaGraphLaunch(graph, stream), "launching a graph"); };
  const double whole = least_time(stream, [&] { replay(many); }, true);
  const double single = least_time(stream, [&] { replay(one); }, true);
  costs.graph_node = Seconds((whole - single) / (kCalls - 1));
  costs.graph_launch = Seconds(least_time(stream, [&] { replay(one); }, false));
  cudaGraphExecDestroy(many);
  cudaGraphExecDestroy(one);
  cudaStreamDestroy(stream);
  return costs;
}

}  // namespace moecast
