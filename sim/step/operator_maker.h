#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/cost/kernel/ready_kernel.h"
#include "sim/step/context_parallel.h"
#include "sim/step/linear_layer.h"
#include "sim/step/step_operators.h"
#include "sim/step/usual_efficiency.h"

namespace moecast {

/// Rows that a linear layer multiplies: tokens of the step, its sequences, new tokens of an encoder.
enum class StepRows { tokens, sequences, encoded };
double rows_of(StepRows rows, const StepShape& shape);

/// An all-reduce over tensor-parallel ranks of fewer columns than the hidden state has.
struct NarrowReduce {
  std::string name;
  double count = 1;    ///< layers
  double columns = 0;  ///< of a token
};

/// Collects the operators of a step: what every kind of block needs of the model, the rank and the profile.
struct OperatorMaker {
  OperatorMaker(const Architecture& model, const Deployment& ranks, const EngineSpec& spec,
                const KernelCalibration& kernels);

  const Architecture& architecture;
  const Deployment& deployment;
  const EngineSpec& engine;
  const KernelCalibration& calibration;
  std::string framework, version;
  DType dtype = DType::bf16;
  std::vector<ContextAttention> context_attention;
  std::vector<NarrowReduce> narrow_reduces;
  StepOperators result;

  StepOperator& add(std::string name, std::string kernel, StepGroup group, double count,
                    std::function<double(const StepShape&)> seconds);
  /// A linear layer to `n` columns from `k`. @param wanted  of its weights; nullopt: the model's.
  void add_gemm(const std::string& name, StepGroup group, std::int64_t n, std::int64_t k, double count,
                StepRows rows = StepRows::tokens, std::optional<DType> wanted = std::nullopt);
  /// @param name  for the note where another format stands in.
  [[nodiscard]] LinearLayer gemm_kernel(const std::string& name, std::int64_t n, std::int64_t k, DType wanted);
  /// A kernel of no table. No work, no call; its spread widens the interval of the step.
  void add_physics(std::string name, StepGroup group, double count, const UsualEfficiency& usual,
                   std::function<StepWork(const StepShape&)> work);

  [[nodiscard]] ReadyKernel find(std::string_view layout, std::string_view part, std::vector<std::string> formats,
                                 const KernelRowValues& row) const;
  /// The first of these that the engine has itself, else the first at all; nullptr where the profile has none.
  [[nodiscard]] ReadyKernel find_first(std::string_view layout, std::initializer_list<std::string_view> parts,
                                       const KernelRowValues& row) const;
  /// A part that no operator stands for.
  void refuse(const std::string& what);
  void note(const std::string& text);
  /// Of the ranks of a tensor-parallel group. @throws InputError when they do not divide it.
  [[nodiscard]] std::int64_t of_rank(std::int64_t what, const std::string& name) const;
};

}  // namespace moecast
