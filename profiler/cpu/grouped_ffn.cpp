#include "profiler/cpu/grouped_ffn.h"

#include <algorithm>
#include <numeric>

#include "models/core/error.h"
#include "models/routing/load.h"
#include "profiler/cpu/gemm.h"
#include "profiler/cpu/stages.h"

namespace moecast {
namespace {

constexpr double kExponent = 0.8;
constexpr std::uint64_t kSeed = 1;

class GroupedFfnJob final : public Job {
 public:
  GroupedFfnJob(const KernelPoint& point, const KernelBuffers& buffers)
      : point_(point),
        rows_(grouped_ffn_rows(point.shape)),
        up_width_(point.shape.width * (point.shape.gated != 0 ? 2 : 1)),
        up_(make_gemm(point.backend, point.dtype, up_width_, point.shape.hidden, point.threads)),
        down_(make_gemm(point.backend, point.dtype, point.shape.hidden, point.shape.width, point.threads)) {
    const double element = bytes_per_element(point.dtype);
    const std::int64_t fullest = *std::max_element(rows_.begin(), rows_.end());
    const std::int64_t slack = std::max(up_->padded_rows(fullest), down_->padded_rows(fullest));
    const std::int64_t total = std::accumulate(rows_.begin(), rows_.end(), std::int64_t{0}) + slack;
    const auto bytes = [](std::int64_t rows, std::int64_t width, double each) {
      return static_cast<std::size_t>(static_cast<double>(rows * width) * each);
    };
    up_ring_ = Ring(buffers.weights, up_->packed_bytes() + down_->packed_bytes(), point.footprint.value());
    input_ = Ring(buffers.input, bytes(total, point.shape.hidden, element), 0);
    // Scratch of one expert, then the results of all, in one piece of the output buffer.
    hidden_bytes_ = bytes(slack, up_width_, sizeof(float));
    active_bytes_ = bytes(slack, point.shape.width, element);
    output_ = Ring(buffers.output, hidden_bytes_ + active_bytes_ + bytes(total, point.shape.hidden, sizeof(float)), 0);
  }

  void prepare() override {
    for (const std::int64_t rows : rows_) {
      if (rows == 0) continue;
      up_->prepare(rows);
      down_->prepare(rows);
    }
  }

  void run() override {
    std::byte* scratch = output_.next();
    auto* up = reinterpret_cast<float*>(scratch);
    std::byte* active = scratch + hidden_bytes_;
    auto* results = reinterpret_cast<float*>(scratch + hidden_bytes_ + active_bytes_);
    const std::byte* inputs = input_.next();
    const OperatorShape& s = point_.shape;
    const auto row_bytes = static_cast<std::size_t>(static_cast<double>(s.hidden) * bytes_per_element(point_.dtype));
    std::size_t first = 0;
    for (const std::int64_t rows : rows_) {
      if (rows == 0) continue;
      const std::byte* weights = up_ring_.next();
      up_->run(rows, inputs + first * row_bytes, weights, up);
      activate(up, active, rows, s.width, s.gated != 0, s.gated != 0 ? Activation::silu : Activation::relu,
               point_.dtype, point_.threads);
      down_->run(rows, active, weights + up_->packed_bytes(), results + first * static_cast<std::size_t>(s.hidden));
      first += static_cast<std::size_t>(rows);
    }
  }

  void warm_up() override {
    std::vector<Region> regions;
    up_ring_.append_regions(regions);
    settle_caches(regions, static_cast<double>(up_ring_.bytes()), point_.threads);
    run();
  }
  [[nodiscard]] int threads() const override { return point_.threads; }
  [[nodiscard]] double ring_bytes() const override { return static_cast<double>(up_ring_.bytes()); }

 private:
  KernelPoint point_;
  std::vector<std::int64_t> rows_;
  std::int64_t up_width_;
  std::unique_ptr<Gemm> up_;
  std::unique_ptr<Gemm> down_;
  Ring up_ring_;  ///< a piece is an expert: both matrices
  Ring input_;
  Ring output_;
  std::size_t hidden_bytes_ = 0;
  std::size_t active_bytes_ = 0;
};

}  // namespace

std::vector<std::int64_t> grouped_ffn_rows(const OperatorShape& shape) {
  ExpertLoad load;
  load.kind = LoadKind::zipf;
  load.parameter = kExponent;
  return sample_rows(expert_popularity(load, shape.experts), shape.tokens, static_cast<int>(shape.top_k), kSeed);
}

std::unique_ptr<Job> make_grouped_ffn_job(const KernelPoint& point, const KernelBuffers& buffers) {
  return std::make_unique<GroupedFfnJob>(point, buffers);
}

}  // namespace moecast
