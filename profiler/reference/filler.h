#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>

#include "profiler/reference/kernels.h"
#include "profiler/reference/weights.h"

namespace moecast {

/// Puts weights where a layout wants them, in the form that the backend likes. Matrices that draw the same numbers are
/// packed once and copied.
class Filler {
 public:
  Filler(const WeightSource& source, Kernels& kernels) : source_(source), kernels_(kernels) {}

  [[nodiscard]] const WeightSource& source() const { return source_; }
  /// Packed weights at `copy + linear.offset`.
  void linear(const Linear& linear, const WeightKey& key, std::byte* copy);
  /// fp32 numbers at `target`.
  static void floats(const Matrix& matrix, std::byte* target);
  /// Numbers in the dtype at `target`.
  void elements(const Matrix& matrix, std::byte* target) const;

 private:
  const WeightSource& source_;
  Kernels& kernels_;
  std::map<std::tuple<std::uint64_t, std::int64_t, std::int64_t>, const std::byte*> packed_;
};

}  // namespace moecast
