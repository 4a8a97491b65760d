#include "profiler/cuda/cublas.h"

#include <dlfcn.h>

#include "models/core/error.h"

namespace moecast {
namespace {

// Values of cublas_api.h and library_types.h.
constexpr int kNoTranspose = 0;
constexpr int kTranspose = 1;
constexpr int kReal32 = 0;
constexpr int kRealBf16 = 14;
constexpr int kCompute32 = 68;
constexpr int kComputeTf32 = 77;
constexpr int kDefaultAlgorithm = -1;

int data_type(GpuMath math) { return math == GpuMath::bf16 ? kRealBf16 : kReal32; }
int compute_type(GpuMath math) { return math == GpuMath::tf32 ? kComputeTf32 : kCompute32; }

void check(int status, const char* call) {
  if (status != 0) throw DeviceError("", std::string(call) + " failed with status " + std::to_string(status));
}

std::vector<std::string> places(const std::string& folder) {
  std::vector<std::string> paths;
  for (const char* name : {"libcublas.so.13", "libcublas.so.12"}) {
    if (!folder.empty()) {
      paths.push_back(folder + "/" + name);
      continue;
    }
    for (const char* prefix : {"", "/usr/local/cuda/lib64/", "/usr/local/cuda/targets/x86_64-linux/lib/",
                               "/opt/torch/.venv/lib/python3.12/site-packages/nvidia/cu13/lib/"}) {
      paths.push_back(std::string(prefix) + name);
    }
  }
  return paths;
}

}  // namespace

struct Cublas::Functions {
  int (*create)(void**);
  int (*destroy)(void*);
  int (*set_stream)(void*, void*);
  int (*set_workspace)(void*, void*, std::size_t);
  int (*get_version)(void*, int*);
  int (*gemm)(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int, const void*,
              void*, int, int, int, int);
  int (*grouped)(void*, const int*, const int*, const int*, const int*, const int*, const void*, const void* const*,
                 int, const int*, const void* const*, int, const int*, const void*, void* const*, int, const int*, int,
                 const int*, int);
};

Cublas::Cublas(const std::string& folder) : functions_(std::make_unique<Functions>()) {
  std::string tried;
  for (const std::string& path : places(folder)) {
    library_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library_ != nullptr) {
      path_ = path;
      break;
    }
    tried += (tried.empty() ? "" : ", ") + path;
  }
  if (library_ == nullptr) throw DeviceError("", "cuBLAS was not found (" + tried + ")", "install cuBLAS 12 or 13");
  const auto load = [this](auto& function, const char* name, bool needed) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library_, name));
    if (needed && function == nullptr) throw DeviceError(path_, std::string("has no ") + name);
  };
  load(functions_->create, "cublasCreate_v2", true);
  load(functions_->destroy, "cublasDestroy_v2", true);
  load(functions_->set_stream, "cublasSetStream_v2", true);
  load(functions_->set_workspace, "cublasSetWorkspace_v2", true);
  load(functions_->get_version, "cublasGetVersion_v2", true);
  load(functions_->gemm, "cublasGemmEx", true);
  load(functions_->grouped, "cublasGemmGroupedBatchedEx", false);
}

Cublas::~Cublas() {
  if (handle_ != nullptr) functions_->destroy(handle_);
  // The library stays loaded: cuBLAS registers kernels with the driver that outlive the handle.
}

void Cublas::attach(void* stream, void* workspace, std::size_t workspace_bytes) {
  if (handle_ == nullptr) check(functions_->create(&handle_), "cublasCreate");
  check(functions_->set_stream(handle_, stream), "cublasSetStream");
  check(functions_->set_workspace(handle_, workspace, workspace_bytes), "cublasSetWorkspace");
}

std::string Cublas::version() const {
  int number = 0;
  if (handle_ == nullptr || functions_->get_version(handle_, &number) != 0) return "cuBLAS (" + path_ + ")";
  return "cuBLAS " + std::to_string(number / 10000) + "." + std::to_string(number / 100 % 100) + "." +
         std::to_string(number % 100) + " (" + path_ + ")";
}

bool Cublas::has_grouped() const { return functions_->grouped != nullptr; }

// cuBLAS counts columns first: row-major Y = X W^T is column-major Y^T[n, m] = W[n, k] * X^T[k, m].
void Cublas::gemm(const GpuGemm& call, GpuMath math) {
  const float one = 1;
  const float zero = 0;
  const int type = data_type(math);
  const auto n = static_cast<int>(call.n);
  const auto m = static_cast<int>(call.m);
  const auto k = static_cast<int>(call.k);
  check(functions_->gemm(handle_, kTranspose, kNoTranspose, n, m, k, &one, call.w, type, k, call.x, type, k, &zero,
                         call.y, type, n, compute_type(math), kDefaultAlgorithm),
        "cublasGemmEx");
}

void Cublas::grouped(const std::vector<GpuGemm>& calls, const GroupedPointers& pointers, GpuMath math) {
  if (!has_grouped()) throw DeviceError(path_, "has no grouped GEMM", "install cuBLAS 12.5 or newer");
  const std::size_t count = calls.size();
  const std::vector<int> transpose(count, kTranspose);
  const std::vector<int> plain(count, kNoTranspose);
  const std::vector<int> single(count, 1);
  const std::vector<float> one(count, 1.0F);
  const std::vector<float> zero(count, 0.0F);
  std::vector<int> m;
  std::vector<int> n;
  std::vector<int> k;
  for (const GpuGemm& call : calls) {
    m.push_back(static_cast<int>(call.m));
    n.push_back(static_cast<int>(call.n));
    k.push_back(static_cast<int>(call.k));
  }
  const int type = data_type(math);
  check(functions_->grouped(handle_, transpose.data(), plain.data(), n.data(), m.data(), k.data(), one.data(),
                            pointers.w, type, k.data(), pointers.x, type, k.data(), zero.data(), pointers.y, type,
                            n.data(), static_cast<int>(count), single.data(), compute_type(math)),
        "cublasGemmGroupedBatchedEx");
}

}  // namespace moecast
