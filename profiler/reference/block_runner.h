#pragma once
#include <cstddef>
#include <cstdint>

#include "profiler/reference/filler.h"
#include "profiler/reference/kernels.h"
#include "profiler/reference/layout.h"

namespace moecast {

/// What all blocks of a step share.
struct BatchShape {
  std::int64_t tokens = 1;  ///< batch * query
  std::int64_t batch = 1;
  std::int64_t query = 1;    ///< new tokens of a sequence
  std::int64_t context = 0;  ///< older entries of the KV cache of a sequence
  std::int64_t hidden = 1;
};

/// One block of a model, executed: rows in the dtype to rows in fp32.
class BlockRunner {
 public:
  BlockRunner() = default;
  BlockRunner(const BlockRunner&) = delete;
  BlockRunner& operator=(const BlockRunner&) = delete;
  virtual ~BlockRunner() = default;

  /// Writes the weights (and the older KV entries) of one copy of the model.
  virtual void fill(Filler& filler, std::int64_t copy, std::byte* weights) = 0;
  /// @param x [tokens, hidden] in the dtype. @param out [tokens, output_width] fp32, overwritten.
  virtual void run(std::byte* weights, std::byte* scratch, const std::byte* x, float* out) = 0;
};

}  // namespace moecast
