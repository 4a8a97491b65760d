#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace moecast {

/// Offsets of buffers that lie one behind the other. Large buffers start on a page of their own.
class Layout {
 public:
  std::size_t reserve(std::size_t bytes) {
    const std::size_t alignment = bytes >= kPage ? kPage : kCacheLine;
    const std::size_t offset = (size_ + alignment - 1) / alignment * alignment;
    size_ = offset + bytes;
    return offset;
  }
  /// Rows of a matrix that a GEMM reads or writes: with room for the rows that a backend adds (row_bucket).
  std::size_t reserve(std::int64_t rows, std::int64_t cols, std::size_t element_bytes) {
    return reserve(static_cast<std::size_t>((rows + kSlackRows) * cols) * element_bytes);
  }
  [[nodiscard]] std::size_t size() const { return (size_ + kPage - 1) / kPage * kPage; }

  static constexpr std::int64_t kSlackRows = 15;  ///< rows that row_bucket adds at most

 private:
  static constexpr std::size_t kPage = 4096;
  static constexpr std::size_t kCacheLine = 64;
  std::size_t size_ = 0;
};

/// Buffers that blocks use one after the other begin at the same place: the largest need counts.
class SharedLayout {
 public:
  [[nodiscard]] Layout begin() const { return {}; }
  void end(const Layout& layout) { size_ = std::max(size_, layout.size()); }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  std::size_t size_ = 0;
};

}  // namespace moecast
