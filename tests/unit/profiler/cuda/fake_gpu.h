#pragma once
#include <memory>
#include <vector>

#include "models/core/error.h"
#include "profiler/cuda/device.h"

namespace moecast {

/// A GPU whose every call takes `m` microseconds, the first replay after a flush ten times as long. Its clock advances
/// with its work, so that budgets can be tested without waiting.
class FakeGpu final : public GpuDevice {
 public:
  [[nodiscard]] GpuInfo info() const override { return facts; }
  [[nodiscard]] std::string refusal(const KernelPoint& point) const override {
    return point.backend == "missing" ? "the library is not there" : "";
  }
  [[nodiscard]] int copies(const KernelPoint& point) const override { return point.footprint.value() > 0 ? 3 : 1; }
  std::unique_ptr<GpuProgram> record(const KernelPoint& point, int calls) override {
    if (point.backend == "broken") throw DeviceError("", "refused by the driver", "");
    recorded.push_back({point, calls});
    return std::make_unique<Program>(*this, 1e-6 * static_cast<double>(point.shape.m), calls);
  }
  void flush_cache() override {
    ++flushes;
    cold = true;
  }

  struct Record {
    KernelPoint point;
    int calls;
  };
  std::vector<Record> recorded;
  GpuInfo facts;
  int flushes = 0;
  bool cold = true;
  double now = 0;

 private:
  class Program final : public GpuProgram {
   public:
    Program(FakeGpu& gpu, double call, int calls) : gpu_(gpu), call_(call), calls_(calls) {}
    Seconds replay() override {
      const double time = call_ * calls_ * (gpu_.cold ? 10 : 1);
      gpu_.cold = false;
      gpu_.now += time;
      return Seconds(time);
    }

   private:
    FakeGpu& gpu_;
    double call_;
    int calls_;
  };
};

inline KernelPoint gemm(std::int64_t m, const char* backend = "cublas", double footprint = 0) {
  KernelPoint point;
  point.backend = backend;
  point.shape.m = m;
  point.footprint = Bytes(footprint);
  return point;
}

}  // namespace moecast
