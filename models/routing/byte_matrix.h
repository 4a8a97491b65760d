#pragma once
#include <algorithm>
#include <span>
#include <vector>

namespace moecast {

/// Bytes that every rank sends to every rank: row = sender, column = receiver. The diagonal stays on its rank.
class ByteMatrix {
 public:
  /// All zero. @throws InputError when ranks < 1.
  explicit ByteMatrix(int ranks);
  /// @param bytes  ranks * ranks values, sender by sender. @throws InputError unless square, finite and not negative.
  ByteMatrix(int ranks, std::vector<double> bytes);

  [[nodiscard]] int ranks() const { return ranks_; }
  [[nodiscard]] double& at(int sender, int receiver) { return bytes_[index(sender, receiver)]; }
  [[nodiscard]] double at(int sender, int receiver) const { return bytes_[index(sender, receiver)]; }
  [[nodiscard]] std::span<const double> values() const { return bytes_; }

  void clear() { std::fill(bytes_.begin(), bytes_.end(), 0.0); }

  /// Bytes that a rank sends to others.
  [[nodiscard]] double egress(int rank) const;
  /// Bytes that a rank receives from others.
  [[nodiscard]] double ingress(int rank) const;
  /// Bytes between different ranks.
  [[nodiscard]] double total() const;
  /// The way back: what combine carries when dispatch carried this.
  [[nodiscard]] ByteMatrix transposed() const;
  [[nodiscard]] ByteMatrix scaled(double factor) const;
  /// Every rank sends `bytes_per_rank` in equal parts to all ranks, itself included.
  static ByteMatrix uniform(int ranks, double bytes_per_rank);

 private:
  [[nodiscard]] std::size_t index(int sender, int receiver) const {
    return static_cast<std::size_t>(sender) * static_cast<std::size_t>(ranks_) + static_cast<std::size_t>(receiver);
  }
  int ranks_;
  std::vector<double> bytes_;
};

}  // namespace moecast
