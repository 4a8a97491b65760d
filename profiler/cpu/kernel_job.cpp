#include "profiler/cpu/kernel_job.h"

#include <functional>
#include <initializer_list>
#include <utility>
#include <vector>

#include "models/core/error.h"
#include "profiler/cpu/gemm.h"
#include "profiler/cpu/grouped_ffn.h"
#include "profiler/cpu/stage_kernels.h"

namespace moecast {
namespace {

void settle(std::initializer_list<const Ring*> rings, int threads) {
  std::vector<Region> regions;
  double bytes = 0;
  for (const Ring* ring : rings) {
    ring->append_regions(regions);
    bytes += static_cast<double>(ring->bytes());
  }
  settle_caches(regions, bytes, threads);
}

class GemmJob final : public Job {
 public:
  GemmJob(const KernelPoint& point, const KernelBuffers& buffers) : point_(point) {
    const OperatorShape& s = point.shape;
    gemm_ = make_gemm(point.backend, point.dtype, s.n, s.k, point.threads);
    const auto rows = static_cast<double>(gemm_->padded_rows(s.m));
    const double input = rows * static_cast<double>(s.k) * bytes_per_element(point.dtype);
    const double output = rows * static_cast<double>(s.n) * sizeof(float);
    if (output > static_cast<double>(buffers.output.size())) {
      throw DeviceError("", "the result of a GEMM does not fit into what is set aside", "measure smaller shapes");
    }
    weights_ = Ring(buffers.weights, gemm_->packed_bytes(), point.footprint.value());
    // As many pieces as calls lie between two uses of the same rows.
    const double call = static_cast<double>(gemm_->packed_bytes()) + input + output;
    input_ = Ring(buffers.input, static_cast<std::size_t>(input), point.input_footprint.value() * input / call);
    output_ = Ring(buffers.output, static_cast<std::size_t>(output), point.output_footprint.value() * output / call);
  }
  void prepare() override { gemm_->prepare(point_.shape.m); }
  void run() override {
    gemm_->run(point_.shape.m, input_.next(), weights_.next(), reinterpret_cast<float*>(output_.next()));
  }
  void warm_up() override {
    settle({&input_, &output_, &weights_}, point_.threads);
    run();
  }
  [[nodiscard]] int threads() const override { return point_.threads; }
  [[nodiscard]] double ring_bytes() const override { return static_cast<double>(weights_.bytes()); }

 private:
  KernelPoint point_;
  std::unique_ptr<Gemm> gemm_;
  Ring weights_;
  Ring input_;
  Ring output_;
};

class StageJob final : public Job {
 public:
  StageJob(const KernelPoint& point, const KernelBuffers& buffers)
      : kernel_(make_stage_kernel(point)), threads_(point.threads) {
    const double input = static_cast<double>(kernel_.input_bytes);
    const double output = static_cast<double>(kernel_.output_bytes);
    const double total = std::max(1.0, input + output);
    input_ = Ring(buffers.weights, kernel_.input_bytes, point.footprint.value() * input / total);
    output_ = Ring(buffers.output, kernel_.output_bytes, point.footprint.value() * output / total);
  }
  void prepare() override {}
  void run() override { kernel_.run(input_.next(), output_.next()); }
  void warm_up() override {
    settle({&input_, &output_}, threads_);
    run();
  }
  [[nodiscard]] int threads() const override { return threads_; }
  [[nodiscard]] double ring_bytes() const override { return static_cast<double>(input_.bytes() + output_.bytes()); }

 private:
  StageKernel kernel_;
  int threads_;
  Ring input_;
  Ring output_;
};

}  // namespace

std::unique_ptr<Job> make_kernel_job(const KernelPoint& point, const KernelBuffers& buffers) {
  for (const ShapeColumn& column : shape_columns(point.kind)) {
    const bool may_be_zero = column.name == "gated" || column.name == "groups";
    if (point.shape.*column.field < (may_be_zero ? 0 : 1)) {
      throw InputError("",
                       std::string(to_string(point.kind)) + " needs " + std::string(column.name) + " of at least 1");
    }
  }
  if (point.kind == OperatorKind::gemm || point.kind == OperatorKind::grouped_gemm) {
    return std::make_unique<GemmJob>(point, buffers);
  }
  if (point.kind == OperatorKind::fused_moe) return make_grouped_ffn_job(point, buffers);
  if (point.kind == OperatorKind::call) {
    KernelPoint smallest = point;
    smallest.shape.m = 1;
    smallest.shape.n = smallest.shape.k = 16;
    return std::make_unique<GemmJob>(smallest, buffers);
  }
  return std::make_unique<StageJob>(point, buffers);
}

}  // namespace moecast
