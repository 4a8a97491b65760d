#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "models/architecture/moe.h"
#include "profiler/reference/block_runner.h"

namespace moecast {

/// Buffers between the products of feed-forward networks that run one after the other.
struct FfnScratch {
  std::size_t up = 0;          ///< fp32 [rows, width or 2 width]
  std::size_t active = 0;      ///< dtype [rows, width]
  std::size_t between = 0;     ///< fp32 [rows, hidden], only for depth above 1
  std::size_t between_in = 0;  ///< dtype [rows, hidden]
};
FfnScratch reserve_ffn(Layout& scratch, const std::vector<ExpertSpec>& specs, std::int64_t rows, std::int64_t hidden,
                       std::size_t element_bytes);

/// Parts that a network's matrices are drawn for.
struct FfnKeys {
  Part up = Part::expert_up;
  Part up_bias = Part::expert_up_bias;
  Part down = Part::expert_down;
  Part down_bias = Part::expert_down_bias;
  std::int64_t block = 0;
  std::int64_t expert = 0;
};

/// A feed-forward network (or the identity): any number of rows from `inputs` wide to `outputs` wide.
class FfnRunner {
 public:
  FfnRunner(const ExpertSpec& spec, std::int64_t inputs, Stage stage, const FfnKeys& keys, Kernels& kernels,
            Layout& weights);
  void fill(Filler& filler, std::int64_t copy, std::byte* weights) const;
  void run(const std::byte* weights, std::byte* scratch, const FfnScratch& buffers, std::int64_t rows,
           const std::byte* x, float* out) const;
  [[nodiscard]] std::int64_t outputs() const { return outputs_; }

 private:
  struct Level {
    Linear up;
    Linear down;
    std::size_t up_bias = 0;
    std::size_t down_bias = 0;
  };
  void copy_through(std::int64_t rows, const std::byte* x, float* out) const;

  ExpertSpec spec_;
  std::int64_t inputs_;
  std::int64_t outputs_;
  Stage stage_;
  FfnKeys keys_;
  Kernels& kernels_;
  std::vector<Level> levels_;
};

/// A feed-forward network that every token passes.
class DenseRunner : public BlockRunner {
 public:
  DenseRunner(const ExpertSpec& spec, const BatchShape& step, std::int64_t block, Kernels& kernels, Layout& weights,
              Layout& scratch);
  void fill(Filler& filler, std::int64_t copy, std::byte* weights) override { ffn_.fill(filler, copy, weights); }
  void run(std::byte* weights, std::byte* scratch, const std::byte* x, float* out) override {
    ffn_.run(weights, scratch, buffers_, tokens_, x, out);
  }

 private:
  FfnRunner ffn_;
  std::int64_t tokens_;
  FfnScratch buffers_;
};

}  // namespace moecast
