#pragma once
#include <cstdint>

namespace moecast {

/// The balanced assignment of published kernel tables (aiconfigurator's): slots of a token lie ceil(E / k) experts
/// apart, tokens start one expert further each, a few tokens spread over the first stride.
class BalancedAssignment {
 public:
  /// @param top_k  1 to experts.
  BalancedAssignment(std::int64_t tokens, std::int64_t top_k, std::int64_t experts)
      : tokens_(tokens), top_k_(top_k), experts_(experts), stride_((experts + top_k - 1) / top_k) {}

  /// The assignment of a token is that of `experts` tokens before it (else there are fewer tokens than that).
  [[nodiscard]] bool starts_again() const { return tokens_ >= stride_; }
  /// @return an expert in [0, experts), another one for every slot of the token.
  [[nodiscard]] std::int64_t expert(std::int64_t token, std::int64_t slot) const {
    const std::int64_t first = starts_again() ? token : token * stride_ / tokens_;
    // Where so many strides would come round to the experts of the first slots, a router takes others: k E / k fit.
    const bool comes_round = (top_k_ - 1) * stride_ >= experts_;
    return (first + (comes_round ? slot * experts_ / top_k_ : slot * stride_)) % experts_;
  }

 private:
  std::int64_t tokens_, top_k_, experts_, stride_;
};

}  // namespace moecast
