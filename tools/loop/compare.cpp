#include "tools/loop/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "models/core/quantity_text.h"

namespace moecast {
namespace {

/// Operators of one name in both answers; nothing where an answer lacks them.
struct Pair {
  std::optional<OperatorCost> first;
  std::optional<OperatorCost> second;
  [[nodiscard]] double difference_s() const {
    return (second ? second->latency.value() : 0) - (first ? first->latency.value() : 0);
  }
};

struct Stage {
  double first_s = 0;
  double second_s = 0;
  std::map<std::string, Pair> operators;
};

void add(const OperatorCost& cost, double& sum_s, std::optional<OperatorCost>& known) {
  sum_s += cost.latency.value();
  if (!known) {
    known = cost;
    return;
  }
  known->latency = known->latency + cost.latency;
  known->count += cost.count;
}

std::map<std::string, Stage> stages_of(const Prediction& first, const Prediction& second) {
  std::map<std::string, Stage> stages;
  for (const OperatorCost& cost : first.operators) {
    Stage& stage = stages[stage_of(cost)];
    add(cost, stage.first_s, stage.operators[cost.name].first);
  }
  for (const OperatorCost& cost : second.operators) {
    Stage& stage = stages[stage_of(cost)];
    add(cost, stage.second_s, stage.operators[cost.name].second);
  }
  return stages;
}

Seconds once(const OperatorCost& cost) { return cost.count > 0 ? cost.latency / cost.count : cost.latency; }

std::string changes_of(const std::string& name, const OperatorCost& a, const OperatorCost& b) {
  std::string text = fmt::format("{} {} to {}", name, format_seconds(once(a)), format_seconds(once(b)));
  if (a.count != b.count) text += fmt::format(", {:g} to {:g} times", a.count, b.count);
  if (a.stage != b.stage) text += fmt::format(", {} instead of {}", b.stage, a.stage);
  return text;
}

std::string cause_of(const Stage& stage) {
  const auto most = std::ranges::max_element(stage.operators, {},
                                             [](const auto& named) { return std::abs(named.second.difference_s()); });
  if (most == stage.operators.end() || most->second.difference_s() == 0) return {};
  const Pair& pair = most->second;
  if (!pair.first) return "only in B: " + most->first;
  if (!pair.second) return "only in A: " + most->first;
  return changes_of(most->first, *pair.first, *pair.second);
}

std::vector<StageDifference> differences_of(const Prediction& first, const Prediction& second) {
  const double whole = second.latency->value() - first.latency->value();
  std::vector<StageDifference> differences;
  for (const auto& [name, stage] : stages_of(first, second)) {
    // What sums leave behind when one is taken from the other is no stage.
    if (std::max(stage.first_s, stage.second_s) <= 1e-12 * first.latency->value()) continue;
    const double difference = stage.second_s - stage.first_s;
    StageDifference one{name, Seconds(stage.first_s), Seconds(stage.second_s), std::nullopt, cause_of(stage)};
    if (whole != 0) one.explained_ratio = difference == 0 ? 0 : difference / whole;
    differences.push_back(std::move(one));
  }
  std::ranges::stable_sort(differences, std::ranges::greater{},
                           [](const StageDifference& one) { return std::abs((one.second - one.first).value()); });
  return differences;
}

/// "1.31 x": three digits, and never "1 x" of what differs.
std::string times(double ratio) {
  if (ratio < 1.005) return fmt::format("{:.2g} %", (ratio - 1) * 100);
  return ratio < 100 ? fmt::format("{:.3g} x", ratio) : fmt::format("{:.0f} x", ratio);
}

std::string status_text(const char* name, const Prediction& prediction) {
  return fmt::format("{}: {}", name, prediction.reason);
}

Ranking ranking_of(const Prediction& first, const Prediction& second) {
  if (!first.latency || !second.latency) {
    if (first.latency) return Ranking::only_first;
    return second.latency ? Ranking::only_second : Ranking::neither;
  }
  if (*first.latency == *second.latency) return Ranking::equal;
  const Seconds first_low = first.low.value_or(*first.latency);
  const Seconds first_high = first.high.value_or(*first.latency);
  const Seconds second_low = second.low.value_or(*second.latency);
  const Seconds second_high = second.high.value_or(*second.latency);
  if (second_high < first_low) return Ranking::faster;
  return first_high < second_low ? Ranking::slower : Ranking::undecided;
}

std::string verdict_text(Ranking ranking, const Prediction& first, const Prediction& second) {
  switch (ranking) {
    case Ranking::faster: return fmt::format("B is {} faster", times(*first.latency / *second.latency));
    case Ranking::slower: return fmt::format("B is {} slower", times(*second.latency / *first.latency));
    case Ranking::equal: return "A and B take equally long";
    case Ranking::undecided: {
      const bool faster = *second.latency < *first.latency;
      const double ratio = faster ? *first.latency / *second.latency : *second.latency / *first.latency;
      return fmt::format("undecided: the intervals overlap (B would be {} {})", times(ratio),
                         faster ? "faster" : "slower");
    }
    case Ranking::only_first: return "only A has an answer; " + status_text("B", second);
    case Ranking::only_second: return "only B has an answer; " + status_text("A", first);
    case Ranking::neither:
      return fmt::format("neither has an answer; {}; {}", status_text("A", first), status_text("B", second));
  }
  return {};
}

/// Tokens of a step: what the throughput was made of.
double tokens_of(const Prediction& prediction) {
  return prediction.throughput_tokens_per_s.value_or(0) * prediction.latency->value();
}

std::string throughput_text(const Prediction& first, const Prediction& second) {
  if (!first.latency || !second.latency || !first.throughput_tokens_per_s || !second.throughput_tokens_per_s) return {};
  const double first_tokens = tokens_of(first);
  const double second_tokens = tokens_of(second);
  if (first_tokens <= 0 || second_tokens <= 0) return {};
  if (std::abs(second_tokens / first_tokens - 1) < 1e-9) return {};
  const auto lowest = [](const Prediction& p, double tokens) { return tokens / p.high.value_or(*p.latency).value(); };
  const auto highest = [](const Prediction& p, double tokens) { return tokens / p.low.value_or(*p.latency).value(); };
  const double ratio = *second.throughput_tokens_per_s / *first.throughput_tokens_per_s;
  if (lowest(second, second_tokens) > highest(first, first_tokens)) {
    return fmt::format("B makes {} more tokens a second", times(ratio));
  }
  if (highest(second, second_tokens) < lowest(first, first_tokens)) {
    return fmt::format("B makes {} fewer tokens a second", times(1 / ratio));
  }
  return fmt::format("tokens a second are undecided: the intervals overlap (B would make {} {})",
                     times(std::max(ratio, 1 / ratio)), ratio > 1 ? "more" : "fewer");
}

}  // namespace

std::string_view to_string(Ranking ranking) {
  switch (ranking) {
    case Ranking::faster: return "faster";
    case Ranking::slower: return "slower";
    case Ranking::equal: return "equal";
    case Ranking::undecided: return "undecided";
    case Ranking::only_first: return "only_a";
    case Ranking::only_second: return "only_b";
    case Ranking::neither: return "neither";
  }
  return {};
}

std::string stage_of(const OperatorCost& cost) {
  if (cost.kind == "host") return cost.name.starts_with("norms") ? "norm" : "host";
  // Steps of CPUs name the stage. Those of GPUs name the kernel there, of several words, and the stage in the name.
  const bool kernel = cost.stage.empty() || cost.stage == "physics" || cost.stage.find(' ') != std::string::npos;
  if (!kernel) return cost.stage;
  if (cost.name == "all_gather") return "dispatch";
  if (cost.name == "reduce_scatter") return "combine";
  const std::string name = cost.name.substr(0, cost.name.find('.'));
  if (name == "ffn") return "dense";
  return name == "dense_residual" ? "shared" : name;
}

Comparison compare(const Prediction& first, const Prediction& second) {
  Comparison comparison;
  comparison.ranking = ranking_of(first, second);
  comparison.verdict_text = verdict_text(comparison.ranking, first, second);
  comparison.throughput_text = throughput_text(first, second);
  if (first.latency && second.latency) comparison.stages = differences_of(first, second);
  return comparison;
}

}  // namespace moecast
