#pragma once
#include <memory>
#include <string>
#include <vector>

#include "profiler/cpu/gemm.h"
#include "profiler/mpi/plan.h"
#include "profiler/mpi/program/attention.h"

namespace moecast {

/// One rank's tokens and its share of the experts; executes layers over all ranks.
///
/// Weights and tokens are made of seeds, so that any rank can compute what another one should have answered. Gates are
/// shifted so that their largest scores are those of the drawn routing: what is chosen is found in the scores, how many
/// rows will come is told by the ranks that send them.
class RankLayer {
 public:
  RankLayer(const MpiLayer& layer, int rank, int ranks);
  /// Attention over the rank's own tokens, where the layer has heads. @return seconds.
  double attend();
  /// Gate, selection, rows in the order of their experts. @return seconds.
  double route();
  /// Counts first, then rows.
  double dispatch();
  double experts();
  double combine();
  /// Experts alone: so many rows, in equal shares on the first `touched` of them.
  double experts_of(std::int64_t rows, std::int64_t touched);
  /// Sums the shares of an expert's ranks, and the weighted results of each token.
  double finish();
  /// Largest difference to the layer computed token by token on this rank, over the largest value; a few tokens.
  [[nodiscard]] double error() const;

 private:
  void choose();
  void run_experts(const std::vector<std::int64_t>& rows, const float* input, float* output);
  /// Of a whole expert, [rows, columns].
  [[nodiscard]] std::vector<float> weights_of(int expert, bool up) const;
  /// This rank's share of it.
  [[nodiscard]] std::vector<float> share_of(int expert, bool up) const;
  [[nodiscard]] int groups() const { return ranks_ / layer_.tp; }

  MpiLayer layer_;
  int rank_, ranks_, local_;
  std::int64_t width_;  ///< of an expert on this rank
  std::vector<float> tokens_, input_, gate_, scores_, shift_, sorted_, sent_, received_, computed_, returned_, result_,
      hidden_rows_, up_rows_, weights_;
  std::vector<std::int32_t> choice_, order_, position_, offsets_;
  std::vector<std::vector<char>> packed_up_, packed_down_;
  std::unique_ptr<Gemm> gate_gemm_, up_, down_;
  std::unique_ptr<RankAttention> attention_;
  std::vector<char> packed_gate_;
  std::vector<float> told_, heard_;  ///< rows of each of a peer's, and of each of the own experts
  std::vector<std::size_t> send_counts_, receive_counts_;
  std::vector<std::int64_t> rows_;  ///< of each local expert
};

}  // namespace moecast
