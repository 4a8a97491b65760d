#include "tools/cli/mix_options.h"

#include <cmath>
#include <utility>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"
#include "tools/cli/query_options.h"

namespace moecast {
namespace {

constexpr const char* kMixGroup = "Tokens that differ";

/// "a:0.7,b:0.3". @throws UsageError
std::vector<std::pair<std::string, double>> shares_of(const std::string& text, const std::string& flag) {
  std::vector<std::pair<std::string, double>> shares;
  double sum = 0;
  for (const std::string& part : split_list(text, flag)) {
    const std::size_t colon = part.rfind(':');
    if (colon == std::string::npos || colon == 0) {
      throw UsageError(flag, "\"" + part + "\" is no name and share", "write e.g. text:0.7,image:0.3");
    }
    for (const auto& [name, share] : shares) {
      if (name == part.substr(0, colon)) throw UsageError(flag, "names \"" + name + "\" twice", "give it once");
    }
    shares.emplace_back(part.substr(0, colon), parse_number(part.substr(colon + 1), flag, 0, 1));
    sum += shares.back().second;
  }
  if (std::abs(sum - 1) > 1e-6) {
    throw UsageError(flag, "has shares that add up to " + std::to_string(sum), "shares add up to 1");
  }
  return shares;
}

}  // namespace

void add_mix_options(const Command& command, MixFlags& flags) {
  const auto text = [&](const char* name, std::string& value, const char* type, const char* help) {
    command.add_option(name, value, help).type_name(type).group(kMixGroup).not_empty();
  };
  text("--modality", flags.modality, "NAME:SHARE,...",
       "Tokens by modality where experts are of one, shares of 1: text:0.7,image:0.3 (default: all of the first)");
  text("--tasks", flags.tasks, "NAME:SHARE,...", "Tokens by task, shares of 1: translation:0.5,qa:0.5 (default: one)");
  text("--private-experts", flags.private_experts, "N",
       "With --tasks: experts of each MoE layer that only one task uses, for each task, 0 to 65536 (default 0)");
  command.add_flag("--task-steps", flags.task_steps, "With --tasks: a step is of one task; else all are in every step")
      .group(kMixGroup);
}

void parse_mix(const MixFlags& flags, Workload& workload) {
  if (!flags.modality.empty()) {
    for (auto& [name, share] : shares_of(flags.modality, "--modality")) workload.modalities.push_back({name, share});
  }
  if (flags.tasks.empty()) {
    if (!flags.private_experts.empty() || flags.task_steps) {
      throw UsageError(flags.task_steps ? "--task-steps" : "--private-experts", "means nothing without tasks",
                       "write --tasks a:0.5,b:0.5");
    }
    return;
  }
  for (auto& [name, share] : shares_of(flags.tasks, "--tasks")) workload.tasks.tasks.push_back({name, share});
  if (!flags.private_experts.empty()) {
    workload.tasks.private_experts = parse_count(flags.private_experts, "--private-experts", 0, 65536);
  }
  workload.tasks.one_a_step = flags.task_steps;
}

void add_mix_inputs(const MixFlags& flags, const Workload& workload, std::vector<InputValue>& inputs) {
  if (!flags.modality.empty()) inputs.push_back({"modality", flags.modality, true});
  if (flags.tasks.empty()) return;
  inputs.push_back({"tasks", flags.tasks, true});
  inputs.push_back({"private_experts", workload.tasks.private_experts, !flags.private_experts.empty()});
  inputs.push_back({"task_steps", workload.tasks.one_a_step, flags.task_steps});
}

}  // namespace moecast
