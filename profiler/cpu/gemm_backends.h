#pragma once
#include <memory>
#include <string>

#include "profiler/cpu/gemm.h"

// One function a backend; each stands in a file of its own and exists only if the library was found.

namespace moecast {

std::unique_ptr<Gemm> make_onednn_gemm(DType dtype, std::int64_t n, std::int64_t k, int threads);
std::string onednn_library();
/// True if oneDNN has a matrix product in `dtype` on this CPU; 2.6 has none in bf16 without AVX-512.
bool onednn_supports(DType dtype);
/// oneDNN asks for blocked weights only where it has kernels for AVX-512.
WeightPacking onednn_weight_packing();
/// True if oneDNN computes bf16 with AMX tiles on this CPU.
bool onednn_uses_tiles();

std::unique_ptr<Gemm> make_openblas_gemm(std::int64_t n, std::int64_t k, int threads);
std::string openblas_library();
/// Core type whose kernels OpenBLAS chose ("SkylakeX", "Zen", "Prescott").
std::string openblas_core();
/// Only its kernels for AVX-512 spare small products the packing.
WeightPacking openblas_weight_packing();

std::unique_ptr<Gemm> make_eigen_gemm(std::int64_t n, std::int64_t k, int threads);
std::string eigen_library();

}  // namespace moecast
