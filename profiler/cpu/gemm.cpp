#include "profiler/cpu/gemm.h"

#include <algorithm>
#include <cstdlib>

#include "models/core/error.h"
#include "profiler/cpu/gemm_backends.h"
#include "profiler/environment.h"

namespace moecast {
namespace {

bool known(const std::string& backend) {
  const auto backends = gemm_backends();
  return std::find(backends.begin(), backends.end(), backend) != backends.end();
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

std::vector<std::string> gemm_backends() {
  std::vector<std::string> names;
#ifdef MOECAST_HAS_ONEDNN
  names.emplace_back("onednn");
#endif
#ifdef MOECAST_HAS_OPENBLAS
  names.emplace_back("openblas");
#endif
  names.emplace_back("eigen");
  return names;
}

bool gemm_supports(const std::string& backend, DType dtype) {
  if (!known(backend)) return false;
#ifdef MOECAST_HAS_ONEDNN
  if (backend == "onednn") return onednn_supports(dtype);
#endif
  return dtype == DType::fp32;
}

RowBucket gemm_row_bucket(const std::string& backend, DType dtype) {
#ifdef MOECAST_HAS_ONEDNN
  if (backend == "onednn" && dtype == DType::bf16 && onednn_uses_tiles()) return RowBucket::tile16;
#else
  static_cast<void>(dtype);
#endif
  return backend == "openblas" ? RowBucket::multiple4 : RowBucket::exact;
}

WeightPacking gemm_weight_packing(const std::string& backend) {
#ifdef MOECAST_HAS_ONEDNN
  if (backend == "onednn") return onednn_weight_packing();
#endif
#ifdef MOECAST_HAS_OPENBLAS
  if (backend == "openblas") return openblas_weight_packing();
#endif
  return WeightPacking::every_call;
}

std::string gemm_library(const std::string& backend) {
#ifdef MOECAST_HAS_ONEDNN
  if (backend == "onednn") return onednn_library();
#endif
#ifdef MOECAST_HAS_OPENBLAS
  if (backend == "openblas") return openblas_library();
#endif
  if (backend == "eigen") return eigen_library();
  throw DeviceError("", "backend \"" + backend + "\" is not in this build", "it has: " + joined(gemm_backends()));
}

std::unique_ptr<Gemm> make_gemm(const std::string& backend, DType dtype, std::int64_t n, std::int64_t k, int threads) {
  if (!known(backend)) {
    throw DeviceError("", "backend \"" + backend + "\" is not in this build", "it has: " + joined(gemm_backends()));
  }
  if (!gemm_supports(backend, dtype)) {
    throw DeviceError("", backend + " has no GEMM in " + std::string(to_string(dtype)) + " here",
                      "bf16 needs --backend onednn and a CPU with AVX-512");
  }
  if (n < 1 || k < 1 || threads < 1) throw InputError("", "a GEMM needs n, k and threads of at least 1");
#ifdef MOECAST_HAS_ONEDNN
  if (backend == "onednn") return make_onednn_gemm(dtype, n, k, threads);
#endif
#ifdef MOECAST_HAS_OPENBLAS
  if (backend == "openblas") return make_openblas_gemm(n, k, threads);
#endif
  return make_eigen_gemm(n, k, threads);
}

std::optional<std::string> openblas_core_override() {
#ifdef MOECAST_HAS_OPENBLAS
  if (std::getenv("OPENBLAS_CORETYPE") != nullptr || openblas_core() != "Prescott") return std::nullopt;
  const Environment environment = read_environment();
  const auto has = [&](const char* flag) {
    return std::binary_search(environment.isa.begin(), environment.isa.end(), std::string(flag));
  };
  if (has("avx512dq")) return "SkylakeX";
  if (has("avx2") && has("fma")) return environment.cpu_model.find("AMD") != std::string::npos ? "Zen" : "Haswell";
#endif
  return std::nullopt;
}

}  // namespace moecast
