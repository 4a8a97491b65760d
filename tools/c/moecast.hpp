/// moecast for C++17: moecast.h with owners and exceptions. Nothing to link but libmoecast.
///
///     moecast::HardwareAwareMoE moe("amd-epyc-2cpu");
///     moecast::MoeConfig layer;
///     layer.hidden = 1024, layer.width = 2048, layer.experts = 16, layer.top_k = 2, layer.tokens = 64;
///     double seconds = moe.estimate_latency(layer).latency_s;
///
/// moecast.h says what fields mean, their units and ranges. Threads may share what is const here.
#pragma once
#include <moecast.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace moecast {
inline namespace wrapper {  // apart from the types that moecast itself is made of

/// What moecast_last_error says, and the status of the call.
class Error : public std::runtime_error {
 public:
  Error(moecast_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  [[nodiscard]] moecast_status status() const noexcept { return status_; }

 private:
  moecast_status status_;
};

/// @throws Error unless the call succeeded.
inline void check(moecast_status status) {
  if (status != MOECAST_OK) throw Error(status, moecast_last_error());
}

/// How a machine is used; empty and 0 stand for the defaults.
struct Settings {
  std::string backend;
  std::string dtype;
  std::string strategy;
  std::string data;
  int threads = 0;
};

/// A lone MoE layer: moecast_moe_config with its defaults.
struct MoeConfig : moecast_moe_config {
  MoeConfig() : moecast_moe_config MOECAST_MOE_CONFIG_INIT {}
};

/// One answer.
struct Estimate : moecast_estimate {
  Estimate() : moecast_estimate MOECAST_ESTIMATE_INIT {}
  /// There is a latency.
  [[nodiscard]] bool ok() const noexcept { return outcome == MOECAST_OUTCOME_OK; }
};

/// Predictions on one machine. Copies share the handle.
class Predictor {
 public:
  /// @param hw  a name of `moecast list hw`, "this-machine", or the folder of a profile. @throws Error.
  explicit Predictor(const std::string& hw, const Settings& settings = {}) {
    moecast_settings how = MOECAST_SETTINGS_INIT;
    how.backend = given(settings.backend);
    how.dtype = given(settings.dtype);
    how.strategy = given(settings.strategy);
    how.data = given(settings.data);
    how.threads = settings.threads;
    moecast_predictor* opened = nullptr;
    check(moecast_open(hw.c_str(), &how, &opened));
    handle_.reset(opened, moecast_close);
  }

  /// @param question_json  as moecast_predict takes it. @return the JSON of `moecast predict --format json`.
  /// @throws Error.
  [[nodiscard]] std::string predict(const std::string& question_json) const {
    char* text = nullptr;
    check(moecast_predict(get(), question_json.c_str(), &text));
    const std::unique_ptr<char, decltype(&moecast_free)> owner(text, moecast_free);
    return owner.get();
  }

  /// @throws Error where a field is out of range or contradicts another.
  [[nodiscard]] Estimate estimate_latency(const moecast_moe_config& config) const {
    Estimate estimate;
    check(moecast_estimate_latency(get(), &config, &estimate));
    return estimate;
  }

  /// For calls of moecast.h; lives as long as a copy of this.
  [[nodiscard]] const moecast_predictor* get() const noexcept { return handle_.get(); }

 private:
  static const char* given(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }

  std::shared_ptr<moecast_predictor> handle_;
};

/// The interface that architecture searches expect, by its usual name.
class HardwareAwareMoE {
 public:
  /// @throws Error.
  explicit HardwareAwareMoE(const std::string& hardware_profile, const Settings& settings = {})
      : predictor_(hardware_profile, settings) {}
  explicit HardwareAwareMoE(Predictor hardware_profile) : predictor_(std::move(hardware_profile)) {}

  /// Latency of one layer, with the four factors and compute. @throws Error.
  [[nodiscard]] Estimate estimate_latency(const moecast_moe_config& moe_config) const {
    return predictor_.estimate_latency(moe_config);
  }

  [[nodiscard]] const Predictor& predictor() const noexcept { return predictor_; }

 private:
  Predictor predictor_;
};

}  // namespace wrapper
}  // namespace moecast
