#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace moecast {

/// Plain fp32 matrix, row major: what the reference runtime's oracle and the gating formulas work on.
struct Matrix {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(std::int64_t row_count, std::int64_t col_count, float value = 0)
      : rows(row_count), cols(col_count), values(static_cast<std::size_t>(row_count * col_count), value) {}

  [[nodiscard]] float& at(std::int64_t row, std::int64_t col) {
    return values[static_cast<std::size_t>(row * cols + col)];
  }
  [[nodiscard]] float at(std::int64_t row, std::int64_t col) const {
    return values[static_cast<std::size_t>(row * cols + col)];
  }
  [[nodiscard]] std::span<float> row(std::int64_t index) {
    return std::span<float>(values).subspan(static_cast<std::size_t>(index * cols), static_cast<std::size_t>(cols));
  }
  [[nodiscard]] std::span<const float> row(std::int64_t index) const {
    return std::span<const float>(values).subspan(static_cast<std::size_t>(index * cols),
                                                  static_cast<std::size_t>(cols));
  }
};

}  // namespace moecast
