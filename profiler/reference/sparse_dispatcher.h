#pragma once
#include <cstdint>
#include <vector>

#include "profiler/reference/matrix.h"

namespace moecast {

/// Splits a batch among experts by a gate matrix, and puts their outputs together again: nonzero + sort, gather and
/// split, (experts), concatenate, multiply by gates, index-add. A token goes to an expert where its gate is above zero.
class SparseDispatcher {
 public:
  /// @param gates [tokens, experts], not negative.
  explicit SparseDispatcher(Matrix gates);

  /// Rows that each expert gets, in the order of the batch.
  [[nodiscard]] const std::vector<std::int64_t>& part_sizes() const { return part_sizes_; }
  /// Token of every dispatched row, expert by expert.
  [[nodiscard]] const std::vector<std::int64_t>& batch_index() const { return batch_index_; }
  /// One [part_sizes[e], width] matrix an expert. @throws UsageError if `input` has another number of rows.
  [[nodiscard]] std::vector<Matrix> dispatch(const Matrix& input) const;
  /// Gate of every row that an expert gets.
  [[nodiscard]] std::vector<std::vector<float>> expert_to_gates() const;

  enum class Space { linear, logarithm };
  /// [tokens, width]: sum over experts of gate * output (gate 1 unless `multiply_by_gates`).
  /// Space::logarithm: outputs are logarithms; they are raised, summed, and the sum's logarithm returned (a token
  /// without any expert gives log(2^-52)).
  /// @throws UsageError if an expert's matrix has other rows than part_sizes or another width.
  [[nodiscard]] Matrix combine(const std::vector<Matrix>& outputs, bool multiply_by_gates = true,
                               Space space = Space::linear) const;

 private:
  Matrix gates_;
  std::vector<std::int64_t> part_sizes_;
  std::vector<std::int64_t> batch_index_;
};

}  // namespace moecast
