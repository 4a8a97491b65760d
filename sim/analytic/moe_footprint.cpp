#include "sim/analytic/moe_footprint.h"

namespace moecast {
namespace {

constexpr double kAccumulator = 4;  ///< bytes of a partial sum, a score or a position

}  // namespace

MoeFootprint moe_footprint(const MoeColumns& layers, std::size_t row, DType dtype) noexcept {
  const double hidden = layers.hidden[row];
  const double width = layers.intermediate[row];
  const double experts = layers.experts[row];
  const double tokens = layers.tokens[row];
  const double rows = tokens * layers.top_k[row];
  const double ups = layers.gated.empty() || layers.gated[row] != 0 ? 2 : 1;
  const double element = bytes_per_element(dtype);
  const double block = experts * (ups + 1) * hidden * width + hidden * experts;
  MoeFootprint out;
  out.parameters = block + 2 * hidden;  // the block's norm and the final one
  const double weights = (block + hidden) * bytes_per_weight(dtype);
  const double activations = tokens * 3 * hidden * element;
  const double workspace =
      rows * hidden * (element + kAccumulator) + rows * width * ups * kAccumulator + tokens * experts * kAccumulator;
  out.memory_bytes = weights + activations + workspace;
  return out;
}

}  // namespace moecast
