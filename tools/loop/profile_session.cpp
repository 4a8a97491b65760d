#include "tools/loop/profile_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <utility>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/statistics.h"
#include "profiler/timing/summary.h"
#include "tools/loop/choose.h"
#include "tools/loop/closure.h"
#include "tools/loop/partial_profile.h"
#include "tools/loop/profile_plan.h"
#include "tools/loop/session_runner.h"

namespace moecast {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSpreadShare = 0.70;  ///< of the budget: points all over the ranges, and the layers
constexpr double kLayerShare = 0.15;   ///< of the budget, inside the former
constexpr double kRepeatShare = 0.06;  ///< of the budget: points measured again in a run of their own
constexpr int kCandidatesPerCombination = 300;
constexpr double kNoisy = 0.05;

class ProfileRun {
 public:
  explicit ProfileRun(const ProfileRequest& request)
      : request_(request),
        start_(Clock::now()),
        profile_(describe_machine(request.name, request.combinations)),
        partial_((forget(request), request.folder), profile_),
        buffers_(weight_buffer_bytes(request.budget)) {
    partial_.prepare();
    outcome_.resumed = partial_.kept().size();
  }

  ProfileOutcome run() {
    measure_spread();
    if (!stopped()) measure_least_sure();
    if (!stopped()) measure_repeats();
    outcome_.complete = !stopped();
    outcome_.points = partial_.kept().size();
    if (outcome_.complete) finish();
    outcome_.profile = profile_;
    return std::move(outcome_);
  }

 private:
  static void forget(const ProfileRequest& request) {
    std::error_code ignored;
    if (request.fresh) std::filesystem::remove_all(request.folder + ".partial", ignored);
  }
  [[nodiscard]] bool stopped() const { return request_.interrupted != nullptr && request_.interrupted->load(); }
  [[nodiscard]] double spent() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  [[nodiscard]] double left() const { return request_.budget.value() - spent(); }

  SessionOptions timing(const std::string& stage, double until_share) {
    SessionOptions options;
    options.rounds = rounds_;
    options.budget = Seconds(std::max(0.0, until_share * request_.budget.value() - spent()));
    options.whole_first_round = false;
    options.interrupted = request_.interrupted;
    if (request_.progress) {
      options.progress = [this, stage](double, Seconds) {
        const double done = std::min(1.0, spent() / request_.budget.value());
        request_.progress(stage, done, Seconds(std::max(0.0, left())));
      };
    }
    return options;
  }

  void measure_spread() {
    speed_ = measure_speed(request_.combinations.front(), buffers_);
    const double kernels_s = (kSpreadShare - kLayerShare) * left();
    const double layers_s = kLayerShare * left();
    const SpreadPlan spread = plan_for(request_.combinations, Seconds(kernels_s), request_.rounds,
                                       static_cast<double>(buffers_.weights.size()), speed_);
    plan_ = spread.options;
    rounds_ = spread.rounds;
    SessionRequest session;
    session.kernels = partial_.missing(initial_points(plan_), static_cast<std::size_t>(rounds_));
    session.layers = closure_layers(request_.combinations, speed_, Seconds(layers_s), rounds_);
    session.timing = timing("spread", kSpreadShare);
    session.timing.indispensable = indispensable_points(session.kernels);
    session.checkpoint = [this](const std::vector<Measurement>& so_far) { partial_.save(so_far); };
    SessionResult result = run_mixed_session(session, buffers_);
    partial_.save(result.kernels);
    partial_.keep(result.kernels);
    for (const ExecutedCase& layer : result.layers) layers_.push_back(executed_layer(layer));
  }

  /// Points for `seconds` of measuring. Every combination gets a share by how unsure it is on the whole; inside it the
  /// least sure points are chosen.
  std::vector<KernelPoint> least_sure(double seconds) {
    const auto model = make_cost_model(std::make_shared<const Calibration>(calibrate(profile_, partial_.kept())));
    std::vector<KernelPoint> measured;
    for (const Measurement& row : partial_.kept()) measured.push_back(row.point);
    std::vector<std::vector<KernelPoint>> pools;
    std::vector<double> unsure;
    double total = 0;
    double each = 0;
    for (const KernelSetting& combination : request_.combinations) {
      PlanOptions one = plan_;
      one.combinations = {combination};
      pools.push_back(candidate_points(one, 1, kCandidatesPerCombination));
      double sum = 0;
      for (const KernelPoint& point : pools.back()) sum += model->uncertainty(point);
      unsure.push_back(sum / static_cast<double>(pools.back().size()));
      total += unsure.back();
      each += expected_time(pools.back(), rounds_, speed_).value() / static_cast<double>(pools.back().size());
    }
    each /= static_cast<double>(pools.size());
    std::vector<KernelPoint> points;
    for (std::size_t c = 0; c < pools.size(); ++c) {
      const auto count = static_cast<std::size_t>(std::max(0.0, seconds / each * unsure[c] / total));
      for (const std::size_t i : choose_uncertain(*model, pools[c], measured, count)) points.push_back(pools[c][i]);
    }
    return points;
  }

  void measure_least_sure() {
    SessionRequest session;
    session.kernels = least_sure((1 - kRepeatShare) * request_.budget.value() - spent());
    outcome_.least_sure = session.kernels.size();
    session.timing = timing("least sure", 1 - kRepeatShare);
    session.checkpoint = [this](const std::vector<Measurement>& so_far) { partial_.save(so_far); };
    const SessionResult result = run_mixed_session(session, buffers_);
    partial_.save(result.kernels);
    partial_.keep(result.kernels);
  }

  /// The noise floor: the same points in a run of their own, against what was measured first.
  void measure_repeats() {
    std::vector<Measurement> first;
    for (const Measurement& row : partial_.kept()) {
      if (row.point.kind == OperatorKind::gemm) first.push_back(row);
    }
    SessionRequest session;
    const std::size_t wanted = 24;
    const std::size_t step = std::max<std::size_t>(1, first.size() / wanted);
    for (std::size_t i = 0; i < first.size(); i += step) session.kernels.push_back(first[i].point);
    session.timing = timing("repeats", 1.0);
    const SessionResult again = run_mixed_session(session, buffers_);
    std::vector<double> moved;
    for (const Measurement& row : again.kernels) {
      const auto before =
          std::find_if(first.begin(), first.end(), [&](const Measurement& other) { return other.point == row.point; });
      moved.push_back(std::abs(row.latency / before->latency - 1));
    }
    if (moved.size() >= 4) outcome_.noise_floor = median(moved);
  }

  /// What was timed in one round only has no interval that could be trusted.
  std::vector<Measurement> timed_twice() {
    std::vector<Measurement> all = partial_.kept();
    const auto once = [](const auto& timed) { return timed.round_s.size() < 2; };
    const std::size_t left_out = std::erase_if(all, once) + std::erase_if(layers_, once);
    if (left_out > 0) {
      profile_.notes.push_back(
          fmt::format("{} points and layers that the budget allowed one round are left out", left_out));
    }
    if (all.empty()) {
      throw UsageError("--budget", "ended before any point was timed in two rounds",
                       "give more time; the same command goes on from what is kept");
    }
    return all;
  }

  void finish() {
    const std::vector<Measurement> all = timed_twice();
    std::vector<double> widths;
    for (const Measurement& row : all) {
      widths.push_back(0.5 * (row.high - row.low) / row.latency);
      outcome_.preempted += row.preempted;
    }
    outcome_.points = all.size();
    outcome_.precision = median(widths);
    summarise_machine(profile_, all);
    record_noise();
    const std::string folder = partial_.folder();
    write_profile(folder, profile_);
    write_samples(folder, all);
    write_layers(folder, layers_);
    // From what was written, as `moecast calibrate` will: numbers in files have six digits.
    outcome_.calibration = calibrate_with_layers(read_profile(folder), read_samples(folder), layers_);
    outcome_.grouped = check_grouped(outcome_.calibration, all);
    write_file_atomically(folder + "/calibration.json", calibration_text(outcome_.calibration));
    publish_profile(folder, request_.folder);
  }

  void record_noise() {
    profile_.quantities["sample_precision"] = {
        outcome_.precision, "1", {}, {}, Origin::measured, "median half width of the 95 % intervals of the samples"};
    if (!outcome_.noise_floor) {
      profile_.notes.push_back("the noise floor is unknown: the budget ended before points could be repeated");
      return;
    }
    profile_.quantities["noise_floor"] = {
        *outcome_.noise_floor, "1", {}, {}, Origin::measured, "median difference of points measured in two runs"};
    if (*outcome_.noise_floor > kNoisy) {
      profile_.notes.push_back(
          fmt::format("noisy: points measured again in a separate run differ by {:.0f} % in the median",
                      100 * *outcome_.noise_floor));
    }
  }

  const ProfileRequest& request_;
  Clock::time_point start_;
  Profile profile_;
  PartialProfile partial_;
  KernelBuffers buffers_;
  PlanOptions plan_;
  int rounds_ = 2;
  MachineSpeed speed_;
  std::vector<ExecutedLayer> layers_;
  ProfileOutcome outcome_;
};

}  // namespace

ProfileOutcome profile_machine(const ProfileRequest& request) { return ProfileRun(request).run(); }

}  // namespace moecast
