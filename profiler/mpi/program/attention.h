#pragma once
#include <memory>
#include <vector>

#include "profiler/cpu/gemm.h"
#include "profiler/mpi/plan.h"

namespace moecast {

/// Evenly spread in [-0.5, 0.5): weights and tokens are made of seeds, so that any rank can compute what another one
/// should have answered.
std::vector<float> mpi_noise(std::size_t count, std::uint64_t seed);
std::vector<char> packed(const Gemm& gemm, const std::vector<float>& weights);
/// Of single-threaded fp32 GEMMs on this machine.
std::string usual_mpi_backend();
/// Rows of a buffer beyond those that are asked for: some GEMMs compute whole blocks.
inline constexpr std::int64_t kSpareMpiRows = 64;

/// Causal attention of one rank over its own tokens, which are one sequence: data-parallel over ranks.
class RankAttention {
 public:
  /// @param layer  with heads.
  explicit RankAttention(const MpiLayer& layer);
  /// tokens [T, hidden] += attention(tokens); rows beyond T are scratch. @return seconds.
  double run(std::vector<float>& tokens);
  /// What `run` makes of token `t`, computed plainly.
  [[nodiscard]] std::vector<double> expected(const std::vector<float>& tokens, std::int64_t t) const;

 private:
  MpiLayer layer_;
  std::vector<float> in_, out_, qkv_, q_, k_, v_, attended_, added_;
  std::vector<char> packed_in_, packed_out_;
  std::unique_ptr<Gemm> qkv_gemm_, out_gemm_;
};

}  // namespace moecast
