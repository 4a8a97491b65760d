#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/cli/prediction_report.h"

namespace moecast::python {

/// A prediction as Python sees it.
struct Estimate {
  Answer answer;
  std::optional<Seconds> tpot;  ///< nullopt = what the prediction itself says
  std::string text;             ///< of one that was unpickled: what the original's `to_text` was
  [[nodiscard]] const Prediction& of() const { return answer.prediction; }
};

/// The same with another latency: everything that is a time, or a rate, moves in proportion.
/// @param origin  weakest one of what the new latency was made of.
Estimate moved(const Estimate& estimate, double latency_s, double low_s, double high_s, Origin origin);

/// Steps that come one after another, each so many times: times and FLOPs add up, memory is the greatest. Where a step
/// has no latency, neither has the sum. @param parts  at least one; the later ones generate tokens.
Estimate summed(const std::vector<std::pair<double, Estimate>>& parts, const std::vector<InputValue>& inputs);

/// What `to_text` and the properties say, restored. @throws InputError for a text that is none of `prediction_json`.
Estimate restored(const std::string& text, std::optional<double> tpot_s);

}  // namespace moecast::python
