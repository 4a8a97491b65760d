#pragma once
#include <optional>
#include <string_view>

namespace moecast {

/// Storage and arithmetic formats of weights and activations.
enum class DType { fp32, bf16, fp16, fp8, fp8_block, mxfp8, int8, int4, mxfp4, nvfp4 };

/// Bytes of one stored weight, its share of scales included (fp8_block: one fp32 per 128 x 128; mxfp4 and mxfp8: one
/// byte per 32; nvfp4: one byte per 16; int4: one fp16 per 128).
double bytes_per_weight(DType dtype);

/// Bytes of one activation element, scales excluded.
double bytes_per_element(DType dtype);

std::string_view to_string(DType dtype);
/// Accepts the names above and the usual synonyms (float32, bfloat16, half, float16, fp8_e4m3, ...).
std::optional<DType> parse_dtype(std::string_view text);

}  // namespace moecast
