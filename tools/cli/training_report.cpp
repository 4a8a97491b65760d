#include "tools/cli/training_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "models/core/quantity_text.h"

namespace moecast {
namespace {

constexpr double kHour = 3600;

std::optional<double> backward_to_forward(const TrainingCosts& costs) {
  const Seconds forward = costs.latency[static_cast<std::size_t>(TrainingPhase::forward)];
  if (forward.value() <= 0) return std::nullopt;
  return costs.latency[static_cast<std::size_t>(TrainingPhase::backward)] / forward;
}

}  // namespace

Json training_json(const Prediction& prediction) {
  if (!prediction.training || !prediction.latency) return {};
  const TrainingCosts& costs = *prediction.training;
  Json json;
  Json phases = Json::array();
  for (std::size_t i = 0; i < kTrainingPhases; ++i) {
    phases.push_back({{"name", std::string(to_string(static_cast<TrainingPhase>(i)))},
                      {"latency_s", costs.latency[i].value()},
                      {"flops", costs.flops[i].value()}});
  }
  json["phases"] = std::move(phases);
  const auto ratio = backward_to_forward(costs);
  json["backward_to_forward_ratio"] = ratio ? Json(*ratio) : Json();
  json["trained_parameters"] = costs.trained_parameters;
  json["devices"] = costs.devices;
  json["device_hours"] = costs.devices * prediction.latency->value() / kHour;
  return json;
}

std::string training_line(const Prediction& prediction) {
  if (!prediction.training || !prediction.latency) return {};
  const TrainingCosts& costs = *prediction.training;
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < kTrainingPhases; ++i) {
    if (costs.latency[i].value() <= 0) continue;
    parts.push_back(fmt::format("{} {} ({})", to_string(static_cast<TrainingPhase>(i)),
                                format_seconds(costs.latency[i]),
                                format_percent(costs.latency[i] / *prediction.latency)));
  }
  std::string text = fmt::format("{}", fmt::join(parts, ", "));
  if (const auto ratio = backward_to_forward(costs)) text += fmt::format("; backward {:.2f} x forward", *ratio);
  return text + fmt::format("; {} parameters trained", format_count(costs.trained_parameters));
}

}  // namespace moecast
