#ifdef MOECAST_HAS_ONEDNN
#include <omp.h>

#include <cstddef>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <utility>

#include "models/core/error.h"
#include "profiler/cpu/gemm_backends.h"

namespace moecast {
namespace {

/// Rows for which the packed layout is asked. The layout was the same for 1 to 2,048 rows on AVX-512 and AMX; every
/// other row count is created on this layout, so it is valid whatever the library would prefer.
constexpr std::int64_t kReferenceRows = 64;
constexpr std::int64_t kBlockRows = 64;

dnnl::memory::data_type library_type(DType dtype) {
  return dtype == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

class OneDnnGemm final : public Gemm {
 public:
  OneDnnGemm(DType dtype, std::int64_t n, std::int64_t k, int threads)
      : engine_(dnnl::engine::kind::cpu, 0),
        stream_(engine_),
        dtype_(dtype),
        tiles_(gemm_row_bucket("onednn", dtype) == RowBucket::tile16),
        n_(n),
        k_(k),
        threads_(threads) {
    omp_set_num_threads(threads_);
    weights_ = {{k, n}, library_type(dtype), dnnl::memory::format_tag::any};
    weights_ = description(kReferenceRows).weights_desc();
  }

  [[nodiscard]] std::size_t packed_bytes() const override { return weights_.get_size(); }
  [[nodiscard]] std::int64_t padded_rows(std::int64_t m) const override {
    return row_bucket(gemm_row_bucket("onednn", dtype_), m);
  }

  void pack(const float* weights, void* packed) const override {
    const dnnl::memory::desc plain({k_, n_}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::ab);
    dnnl::memory source(plain, engine_, const_cast<float*>(weights));
    dnnl::memory target(weights_, engine_, packed);
    dnnl::stream stream(engine_);
    dnnl::reorder(source, target).execute(stream, source, target);
    stream.wait();
  }

  void prepare(std::int64_t m) override {
    const auto [blocks, rest] = split(padded_rows(m));
    if (blocks > 0) static_cast<void>(call(blocks));
    if (rest > 0) static_cast<void>(call(rest));
  }

  void run(std::int64_t m, const void* a, const void* packed, float* c) override {
    if (m < 1) return;
    const auto [blocks, rest] = split(padded_rows(m));
    if (blocks > 0) run_call(blocks, a, packed, c);
    if (rest == 0) return;
    const auto skipped = static_cast<std::size_t>(blocks * k_) * dnnl::memory::data_type_size(library_type(dtype_));
    run_call(rest, static_cast<const std::byte*>(a) + skipped, packed, c + blocks * n_);
  }

  [[nodiscard]] std::string implementation(std::int64_t m) override {
    const auto [blocks, rest] = split(padded_rows(m));
    return description(blocks > 0 ? blocks : rest).impl_info_str();
  }

 private:
  /// Rows of the first call and of the second. With tiles, oneDNN 2.6 blocks rows by 64 and does badly on what is left
  /// over: n 8192, k 2048 takes 2.5 ms for 64 rows and 6.0 for 80, but 1.6 for the 16 alone.
  [[nodiscard]] std::pair<std::int64_t, std::int64_t> split(std::int64_t rows) const {
    if (!tiles_) return {rows, 0};
    return {rows / kBlockRows * kBlockRows, rows % kBlockRows};
  }

  void run_call(std::int64_t rows, const void* a, const void* packed, float* c) {
    Call& made = call(rows);
    omp_set_num_threads(threads_);
    made.a.set_data_handle(const_cast<void*>(a));
    made.w.set_data_handle(const_cast<void*>(packed));
    made.c.set_data_handle(c);
    made.primitive.execute(stream_, made.arguments);
  }

  struct Call {
    dnnl::matmul primitive;
    dnnl::memory a, w, c;
    std::unordered_map<int, dnnl::memory> arguments;
  };

  [[nodiscard]] dnnl::matmul::primitive_desc description(std::int64_t m) const {
    using Tag = dnnl::memory::format_tag;
    const dnnl::memory::desc a({m, k_}, library_type(dtype_), Tag::ab);
    const dnnl::memory::desc c({m, n_}, dnnl::memory::data_type::f32, Tag::ab);
    return {dnnl::matmul::desc(a, weights_, c), engine_};
  }

  Call& call(std::int64_t m) {
    const auto found = calls_.find(m);
    if (found != calls_.end()) return found->second;
    omp_set_num_threads(threads_);
    const auto chosen = description(m);
    Call made{dnnl::matmul(chosen),
              dnnl::memory(chosen.src_desc(), engine_, DNNL_MEMORY_NONE),
              dnnl::memory(chosen.weights_desc(), engine_, DNNL_MEMORY_NONE),
              dnnl::memory(chosen.dst_desc(), engine_, DNNL_MEMORY_NONE),
              {}};
    made.arguments = {{DNNL_ARG_SRC, made.a}, {DNNL_ARG_WEIGHTS, made.w}, {DNNL_ARG_DST, made.c}};
    return calls_.emplace(m, std::move(made)).first->second;
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::memory::desc weights_;
  DType dtype_;
  bool tiles_;
  std::int64_t n_;
  std::int64_t k_;
  int threads_;
  std::unordered_map<std::int64_t, Call> calls_;
};

}  // namespace

std::unique_ptr<Gemm> make_onednn_gemm(DType dtype, std::int64_t n, std::int64_t k, int threads) {
  try {
    return std::make_unique<OneDnnGemm>(dtype, n, k, threads);
  } catch (const dnnl::error& error) {
    throw DeviceError("", std::string("oneDNN cannot make a GEMM: ") + error.what(),
                      "moecast doctor shows what it computes on this CPU");
  }
}

std::string onednn_library() {
  const dnnl_version_t* version = dnnl_version();
  return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch);
}

WeightPacking onednn_weight_packing() {
  static const bool plain = [] {
    constexpr std::int64_t kColumns = 128;
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    using Tag = dnnl::memory::format_tag;
    const auto type = dnnl::memory::data_type::f32;
    const dnnl::memory::desc rows({kReferenceRows, kColumns}, type, Tag::ab);
    const dnnl::memory::desc weights({kColumns, kColumns}, type, Tag::any);
    const dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(rows, weights, rows), engine);
    return chosen.weights_desc() == dnnl::memory::desc({kColumns, kColumns}, type, Tag::ab);
  }();
  return plain ? WeightPacking::none : WeightPacking::ahead;
}

bool onednn_supports(DType dtype) {
  if (dtype != DType::fp32 && dtype != DType::bf16) return false;
  const auto tried = [](DType type) {
    try {
      static_cast<void>(OneDnnGemm(type, 64, 64, 1));
      return true;
    } catch (const dnnl::error&) {
      return false;
    }
  };
  static const bool fp32 = tried(DType::fp32);
  static const bool bf16 = tried(DType::bf16);
  return dtype == DType::fp32 ? fp32 : bf16;
}

bool onednn_uses_tiles() {
  const int isa = static_cast<int>(dnnl::get_effective_cpu_isa());
  return (isa & static_cast<int>(dnnl::cpu_isa::avx512_core_amx)) == static_cast<int>(dnnl::cpu_isa::avx512_core_amx);
}

}  // namespace moecast
#endif
