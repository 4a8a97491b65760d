#pragma once
#include <Eigen/Dense>
#include <cstdint>

#include "models/architecture/attention.h"
#include "models/architecture/moe.h"
#include "profiler/reference/oracle.h"

namespace moecast::oracle {

using Table = Eigen::MatrixXd;  ///< tokens in rows

/// Everything that a block needs to know about the step.
struct Step {
  DType dtype = DType::fp32;
  std::int64_t batch = 1;
  std::int64_t query = 1;    ///< new tokens of a sequence
  std::int64_t context = 0;  ///< older entries of the KV cache of a sequence
  const WeightSource* source = nullptr;
  std::int64_t copy = 0;
  std::int64_t block = 0;
  bool training = false;
};

/// Parts that hold the matrices of a feed-forward network.
struct FfnParts {
  Part up = Part::expert_up;
  Part up_bias = Part::expert_up_bias;
  Part down = Part::expert_down;
  Part down_bias = Part::expert_down_bias;
  std::int64_t expert = 0;
};

Table to_table(const Matrix& matrix, DType dtype);
Table rounded(const Table& table, DType dtype);
Matrix to_matrix(const Table& table);
/// Weights in the step's format.
Table weights(const Step& step, Part part, std::int64_t expert, std::int64_t index, std::int64_t inputs,
              std::int64_t outputs);

Table ffn(const Step& step, const ExpertSpec& spec, const FfnParts& parts, const Table& x);
Table attention(const Step& step, const AttentionBlock& block, const Table& x);
/// @param shift  [tokens, experts] or empty.
Table moe(const Step& step, const MoeBlock& block, const std::vector<float>& shift, const Table& x,
          OracleResult& result);
Table norm(const Step& step, std::int64_t index, const Table& x);

}  // namespace moecast::oracle
