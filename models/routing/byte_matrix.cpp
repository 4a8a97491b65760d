#include "models/routing/byte_matrix.h"

#include <fmt/format.h>

#include <cmath>
#include <numeric>
#include <utility>

#include "models/core/error.h"

namespace moecast {
namespace {

std::size_t cells(int ranks) {
  if (ranks < 1) {
    throw InputError("byte matrix", fmt::format("has {} ranks; at least 1 is needed", ranks));
  }
  return static_cast<std::size_t>(ranks) * static_cast<std::size_t>(ranks);
}

}  // namespace

ByteMatrix::ByteMatrix(int ranks) : ranks_(ranks), bytes_(cells(ranks), 0.0) {}

ByteMatrix::ByteMatrix(int ranks, std::vector<double> bytes) : ranks_(ranks), bytes_(std::move(bytes)) {
  if (bytes_.size() != cells(ranks)) {
    throw InputError("byte matrix",
                     fmt::format("has {} values; {} ranks need {} (square)", bytes_.size(), ranks, cells(ranks)));
  }
  for (int sender = 0; sender < ranks; ++sender) {
    for (int receiver = 0; receiver < ranks; ++receiver) {
      const double value = at(sender, receiver);
      if (!std::isfinite(value) || value < 0) {
        throw InputError("byte matrix",
                         fmt::format("says {} bytes from rank {} to rank {}; must be finite and not negative", value,
                                     sender, receiver));
      }
    }
  }
}

double ByteMatrix::egress(int rank) const {
  double sum = 0;
  for (int other = 0; other < ranks_; ++other) {
    sum += other == rank ? 0 : at(rank, other);
  }
  return sum;
}

double ByteMatrix::ingress(int rank) const {
  double sum = 0;
  for (int other = 0; other < ranks_; ++other) {
    sum += other == rank ? 0 : at(other, rank);
  }
  return sum;
}

double ByteMatrix::total() const {
  double sum = std::accumulate(bytes_.begin(), bytes_.end(), 0.0);
  for (int rank = 0; rank < ranks_; ++rank) {
    sum -= at(rank, rank);
  }
  return sum;
}

ByteMatrix ByteMatrix::transposed() const {
  ByteMatrix back(ranks_);
  for (int sender = 0; sender < ranks_; ++sender) {
    for (int receiver = 0; receiver < ranks_; ++receiver) {
      back.at(receiver, sender) = at(sender, receiver);
    }
  }
  return back;
}

ByteMatrix ByteMatrix::scaled(double factor) const {
  ByteMatrix result(*this);
  for (double& value : result.bytes_) {
    value *= factor;
  }
  return result;
}

ByteMatrix ByteMatrix::uniform(int ranks, double bytes_per_rank) {
  return {ranks, std::vector<double>(cells(ranks), bytes_per_rank / ranks)};
}

}  // namespace moecast
