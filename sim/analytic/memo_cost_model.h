#pragma once
#include <memory>
#include <string>
#include <unordered_map>

#include "sim/cost/cost_model.h"

namespace moecast {

/// Remembers every cost it was asked for. Not safe to share between threads.
class MemoCostModel final : public CostModel {
 public:
  explicit MemoCostModel(std::shared_ptr<const CostModel> model) : model_(std::move(model)) {}

  [[nodiscard]] KernelCost cost(const KernelPoint& point, double rows) const override;
  [[nodiscard]] double uncertainty(const KernelPoint& point) const override { return model_->uncertainty(point); }
  [[nodiscard]] bool knows(OperatorKind kind, const std::string& backend, DType dtype, int threads) const override {
    return model_->knows(kind, backend, dtype, threads);
  }

 private:
  std::shared_ptr<const CostModel> model_;
  mutable std::unordered_map<std::string, KernelCost> known_;
};

}  // namespace moecast
