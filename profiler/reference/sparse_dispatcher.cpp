#include "profiler/reference/sparse_dispatcher.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "models/core/error.h"

namespace moecast {

SparseDispatcher::SparseDispatcher(Matrix gates) : gates_(std::move(gates)) {
  part_sizes_.assign(static_cast<std::size_t>(gates_.cols), 0);
  for (std::int64_t e = 0; e < gates_.cols; ++e) {
    for (std::int64_t t = 0; t < gates_.rows; ++t) {
      if (gates_.at(t, e) <= 0) continue;
      ++part_sizes_[static_cast<std::size_t>(e)];
      batch_index_.push_back(t);
    }
  }
}

std::vector<Matrix> SparseDispatcher::dispatch(const Matrix& input) const {
  if (input.rows != gates_.rows) throw UsageError("dispatch", "input and gates differ in tokens", {});
  std::vector<Matrix> parts;
  auto token = batch_index_.begin();
  for (const std::int64_t size : part_sizes_) {
    Matrix& part = parts.emplace_back(size, input.cols);
    for (std::int64_t r = 0; r < size; ++r, ++token) std::ranges::copy(input.row(*token), part.row(r).begin());
  }
  return parts;
}

std::vector<std::vector<float>> SparseDispatcher::expert_to_gates() const {
  std::vector<std::vector<float>> out(part_sizes_.size());
  auto token = batch_index_.begin();
  for (std::size_t e = 0; e < part_sizes_.size(); ++e) {
    for (std::int64_t r = 0; r < part_sizes_[e]; ++r, ++token) {
      out[e].push_back(gates_.at(*token, static_cast<std::int64_t>(e)));
    }
  }
  return out;
}

Matrix SparseDispatcher::combine(const std::vector<Matrix>& outputs, bool multiply_by_gates, Space space) const {
  if (outputs.size() != part_sizes_.size()) throw UsageError("combine", "one output matrix an expert is needed", {});
  const std::int64_t width = outputs.empty() ? 0 : outputs.front().cols;
  Matrix sum(gates_.rows, width);
  auto token = batch_index_.begin();
  for (std::size_t e = 0; e < outputs.size(); ++e) {
    if (outputs[e].rows != part_sizes_[e] || outputs[e].cols != width) {
      throw UsageError("combine", "an expert's output has other rows than it was given", {});
    }
    for (std::int64_t r = 0; r < outputs[e].rows; ++r, ++token) {
      const float gate = multiply_by_gates ? gates_.at(*token, static_cast<std::int64_t>(e)) : 1.0F;
      for (std::int64_t c = 0; c < width; ++c) {
        const float value = outputs[e].at(r, c);
        sum.at(*token, c) += gate * (space == Space::logarithm ? std::exp(value) : value);
      }
    }
  }
  if (space == Space::logarithm) {
    for (float& value : sum.values) {
      value = std::log(value == 0 ? static_cast<float>(std::numeric_limits<double>::epsilon()) : value);
    }
  }
  return sum;
}

}  // namespace moecast
