#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "profiler/cpu/gemm.h"
#include "profiler/mpi/plan.h"

namespace moecast {

/// Experts of one rank and its share of the tokens; executes layers over all ranks.
///
/// Weights and tokens are made of seeds, so that any rank can compute what another one should have answered.
class RankLayer {
 public:
  RankLayer(const MpiLayer& layer, int rank, int ranks);
  /// Gate, selection, rows in the order of their experts. @return seconds.
  double route();
  double dispatch();
  double experts();
  double combine();
  /// Experts alone: so many rows, in equal shares on the first `touched` of them.
  double experts_of(std::int64_t rows, std::int64_t touched);
  /// Sums the weighted results of each token.
  double finish();
  /// Largest difference to the layer computed token by token on this rank, over the largest value; a few tokens.
  [[nodiscard]] double error() const;

 private:
  void run_experts(const std::vector<std::int64_t>& rows, const float* input, float* output);
  [[nodiscard]] std::vector<float> weights_of(int expert, bool up) const;

  MpiLayer layer_;
  int rank_, ranks_, local_;
  std::vector<float> tokens_, gate_, scores_, sent_, received_, computed_, returned_, result_, hidden_rows_, up_rows_;
  std::vector<std::int32_t> choice_, position_, offsets_;
  std::vector<std::vector<char>> packed_up_, packed_down_;
  std::unique_ptr<Gemm> gate_gemm_, up_, down_;
  std::vector<char> packed_gate_;
  std::vector<std::size_t> send_counts_, receive_counts_;
  std::vector<std::vector<std::int64_t>> arriving_;  ///< of each sender: rows of each local expert
  std::vector<std::int64_t> rows_;                   ///< of each local expert
};

}  // namespace moecast
