#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "profiler/cpu/settle.h"

namespace moecast {

/// Memory in huge pages, filled once with numbers that are small and sane both as fp32 and as pairs of bf16.
class Buffer {
 public:
  /// @throws DeviceError when the machine has not so much memory.
  explicit Buffer(std::size_t bytes);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// The buffers that all kernel jobs of a session share: a job's ring lies in them, so that whatever ran in between has
/// used the caches the way another layer would.
struct KernelBuffers {
  /// Sizes by what the machine has: weights get at most `most_weight_bytes` and at most a third of the memory, inputs
  /// and outputs a quarter of that each.
  explicit KernelBuffers(std::size_t most_weight_bytes = std::size_t{2} << 30);
  Buffer weights;
  Buffer input;
  Buffer output;
};

/// Hands out consecutive pieces of a buffer and starts again after `ring_bytes`: two uses of one piece are a ring
/// apart.
class Ring {
 public:
  Ring() = default;
  /// A ring smaller than one piece is one piece; one larger than the buffer is the buffer.
  Ring(const Buffer& buffer, std::size_t piece_bytes, double ring_bytes);
  std::byte* next();
  /// What to read before a measurement: the whole ring; of one beyond two cache_reach_bytes() the last two thirds of
  /// one before the next piece, so that what other jobs left to be written back is gone.
  void append_regions(std::vector<Region>& regions) const;
  [[nodiscard]] std::size_t bytes() const { return piece_ * pieces_; }

 private:
  std::byte* base_ = nullptr;
  std::size_t piece_ = 0;
  std::size_t pieces_ = 1;
  std::size_t at_ = 0;
};

}  // namespace moecast
