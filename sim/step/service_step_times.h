#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "sim/step/service_instance.h"
#include "sim/step/step_model.h"

namespace moecast {

/// What a step costs beyond its kernels: `host`, the host of the engine as its log of steps shows it (StepModel);
/// `service`, what served tokens were measured to cost in all (EngineService), which knows no launches.
enum class StepLaw { host, service };

/// Which end of the 90 % interval of a step.
enum class IntervalEnd { low, middle, high };

/// A further pass of a step: layers that guess a token.
struct StepFollower {
  std::shared_ptr<const StepModel> model;
  double times = 1;    ///< one after another
  bool first = false;  ///< it sees every row of the step; others a row of each sequence
};

/// Steps of a served model on GPUs, fast enough to simulate millions: kernels that depend on the same quantities are
/// asked once on a grid and interpolated (within 1 % of StepModel). One thread at a time.
class ServiceStepTimes {
 public:
  /// @param calibrated  the engine's host constants were fitted to this model on this machine; else the interval is at
  /// least that of left-out deployments.
  ServiceStepTimes(std::shared_ptr<const StepModel> model, bool calibrated, StepLaw law = StepLaw::host,
                   std::vector<StepFollower> followers = {});
  ~ServiceStepTimes();
  ServiceStepTimes(const ServiceStepTimes&) = delete;
  ServiceStepTimes& operator=(const ServiceStepTimes&) = delete;

  [[nodiscard]] double seconds(const ServiceStep& step, IntervalEnd end) const;
  /// Of a step on a rank, padded.
  [[nodiscard]] double rows(const ServiceStep& step) const;

 private:
  class Grids;
  [[nodiscard]] StepTimes times_of(const StepShape& shape) const;
  [[nodiscard]] double follower_seconds(const StepShape& shape) const;
  [[nodiscard]] StepShape shape_of(const ServiceStep& step) const;
  [[nodiscard]] StepShape share_of(const ServiceStep& step) const;
  [[nodiscard]] double eager_seconds(const StepShape& shape) const;
  [[nodiscard]] double service_seconds(const StepShape& shape, IntervalEnd end) const;
  std::shared_ptr<const StepModel> model_;
  bool calibrated_;
  StepLaw law_;
  std::unique_ptr<Grids> grids_;
  std::vector<StepFollower> followers_;
  std::vector<std::unique_ptr<Grids>> follower_grids_;
};

}  // namespace moecast
