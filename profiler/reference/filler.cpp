#include "profiler/reference/filler.h"

#include <cstring>

#include "profiler/cpu/stages.h"

namespace moecast {

void Filler::linear(const Linear& linear, const WeightKey& key, std::byte* copy) {
  std::byte* target = copy + linear.offset;
  const auto [entry, fresh] = packed_.try_emplace({source_.identity(key), linear.n, linear.k}, target);
  if (fresh) {
    kernels_.pack(linear.n, linear.k, source_.weights(key, linear.k, linear.n).values.data(), target);
  } else {
    std::memcpy(target, entry->second, kernels_.packed_bytes(linear.n, linear.k));
  }
}

void Filler::floats(const Matrix& matrix, std::byte* target) {
  std::memcpy(target, matrix.values.data(), matrix.values.size() * sizeof(float));
}

void Filler::elements(const Matrix& matrix, std::byte* target) const {
  to_dtype(matrix.values.data(), target, static_cast<std::int64_t>(matrix.values.size()), kernels_.dtype(), 1);
}

}  // namespace moecast
