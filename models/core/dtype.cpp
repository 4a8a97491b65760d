#include "models/core/dtype.h"

#include <array>
#include <utility>

namespace moecast {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  double weight_bytes;
  double element_bytes;
};

constexpr std::array kRows{
    Row{DType::fp32, "fp32", 4, 4},
    Row{DType::bf16, "bf16", 2, 2},
    Row{DType::fp16, "fp16", 2, 2},
    Row{DType::fp8, "fp8", 1, 1},
    Row{DType::fp8_block, "fp8_block", 1 + 4.0 / (128 * 128), 1},
    Row{DType::mxfp8, "mxfp8", 1 + 1.0 / 32, 1},
    Row{DType::int8, "int8", 1, 1},
    Row{DType::int4, "int4", 0.5 + 2.0 / 128, 0.5},
    Row{DType::mxfp4, "mxfp4", 0.5 + 1.0 / 32, 0.5},
    Row{DType::nvfp4, "nvfp4", 0.5 + 1.0 / 16, 0.5},
};

constexpr std::array<std::pair<std::string_view, DType>, 13> kSynonyms{{
    {"float32", DType::fp32},
    {"f32", DType::fp32},
    {"float", DType::fp32},
    {"bfloat16", DType::bf16},
    {"float16", DType::fp16},
    {"half", DType::fp16},
    {"fp8_e4m3", DType::fp8},
    {"float8", DType::fp8},
    {"float8_e4m3fn", DType::fp8},
    {"int4_wo", DType::int4},
    {"w4a16_mxfp4", DType::mxfp4},
    {"w4a8_mxfp4_mxfp8", DType::mxfp4},
    {"fp4", DType::nvfp4},
}};

const Row& row(DType dtype) { return kRows[static_cast<std::size_t>(dtype)]; }

}  // namespace

double bytes_per_weight(DType dtype) { return row(dtype).weight_bytes; }
double bytes_per_element(DType dtype) { return row(dtype).element_bytes; }
std::string_view to_string(DType dtype) { return row(dtype).name; }

std::optional<DType> parse_dtype(std::string_view text) {
  for (const Row& r : kRows) {
    if (r.name == text) return r.dtype;
  }
  for (const auto& [name, dtype] : kSynonyms) {
    if (name == text) return dtype;
  }
  return std::nullopt;
}

}  // namespace moecast
