#include "tools/cli/training_options.h"

#include <fmt/format.h>

#include <array>
#include <optional>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"
#include "tools/cli/query_options.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostAttackSteps = 1'000'000;

[[noreturn]] void refuse_word(const std::string& flag, const std::string& text, const std::string& kind,
                              const std::vector<std::string_view>& known) {
  const auto near = nearest_name(text, known);
  throw UsageError(
      flag, fmt::format("\"{}\" is not {}", text, kind),
      near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("write one of: {}", fmt::join(known, ", ")));
}

std::vector<std::string_view> part_words() {
  std::vector<std::string_view> words{"all", "non-experts"};
  for (std::size_t i = 0; i < kModelParts; ++i) words.push_back(to_string(static_cast<ModelPart>(i)));
  return words;
}

/// "router,experts", "non-experts", "all".
std::array<bool, kModelParts> parse_parts(const std::string& text, const std::string& flag) {
  std::array<bool, kModelParts> chosen{};
  for (const std::string& word : split_list(text, flag)) {
    bool known = false;
    for (std::size_t i = 0; i < kModelParts; ++i) {
      const auto part = static_cast<ModelPart>(i);
      const bool means =
          word == "all" || word == to_string(part) || (word == "non-experts" && part != ModelPart::experts);
      chosen[i] = chosen[i] || means;
      known = known || means;
    }
    if (!known) refuse_word(flag, word, "a part of a model", part_words());
  }
  return chosen;
}

std::int64_t parse_attack(const std::string& text) {
  if (text == "fgsm") return 1;
  if (!text.starts_with("pgd:")) {
    throw UsageError("--attack", fmt::format("\"{}\" is not an attack", text), "write fgsm, or pgd:10 for ten steps");
  }
  return parse_count(text.substr(4), "--attack", 1, kMostAttackSteps);
}

void refuse_beside_attack(const TrainingFlags& flags, const TrainingCounts& counts) {
  const auto refuse = [](bool given, const char* flag) {
    if (given) throw UsageError(flag, "means nothing beside --attack, which trains nothing", "leave one of them out");
  };
  refuse(!flags.optimizer.empty(), "--optimizer");
  refuse(!flags.freeze.empty(), "--freeze");
  refuse(!flags.train_only.empty(), "--train-only");
  refuse(!flags.state_dtype.empty(), "--state-dtype");
  refuse(!flags.gradient_dtype.empty(), "--gradient-dtype");
  refuse(flags.no_master_weights, "--no-master-weights");
  refuse(flags.input_gradient, "--input-gradient");
  refuse(counts.accumulation > 1, "--accumulation");
  refuse(counts.zero_stage > 0, "--zero");
}

DType parse_format_of(const std::string& text, const std::string& flag) {
  const auto dtype = parse_dtype(text);
  if (!dtype || bytes_per_element(*dtype) < 2) {
    throw UsageError(flag, fmt::format("\"{}\" is not a format of it", text), "write fp32, bf16 or fp16");
  }
  return *dtype;
}

}  // namespace

void add_training_options(const Command& command, TrainingFlags& flags) {
  const auto text = [&](const char* name, std::string& value, const char* type, const char* help) {
    command.add_option(name, value, help).type_name(type).group(kTrainingGroup).not_empty();
  };
  text("--optimizer", flags.optimizer, "NAME", "sgd, momentum or adam (default)");
  text("--freeze", flags.freeze, "PART,...",
       "Parts that are not trained: embedding, attention, router, experts, shared, dense, norms, head, non-experts");
  text("--train-only", flags.train_only, "PART,...", "All but these are frozen");
  text("--recompute", flags.recompute, "MODE",
       "Forward results that the backward pass makes again: none (default), selective (norms, activation functions, "
       "attention cores) or full (layers)");
  text("--state-dtype", flags.state_dtype, "NAME", "Of the optimiser's states: fp32 (default), bf16, fp16");
  text("--gradient-dtype", flags.gradient_dtype, "NAME", "Of gradients (default: the weights')");
  text("--attack", flags.attack, "NAME",
       "Instead of training: fgsm or pgd:N, N forward and backward passes for the gradient of the input");
  command.add_flag("--no-master-weights", flags.no_master_weights, "No fp32 copy of narrower weights")
      .group(kTrainingGroup);
  command.add_flag("--input-gradient", flags.input_gradient, "The gradient of the model's input is wanted too")
      .group(kTrainingGroup);
}

std::string typed_training_flag(const TrainingFlags& flags) {
  const std::array<std::pair<const char*, bool>, 9> typed{{{"--optimizer", !flags.optimizer.empty()},
                                                           {"--freeze", !flags.freeze.empty()},
                                                           {"--train-only", !flags.train_only.empty()},
                                                           {"--recompute", !flags.recompute.empty()},
                                                           {"--state-dtype", !flags.state_dtype.empty()},
                                                           {"--gradient-dtype", !flags.gradient_dtype.empty()},
                                                           {"--attack", !flags.attack.empty()},
                                                           {"--no-master-weights", flags.no_master_weights},
                                                           {"--input-gradient", flags.input_gradient}}};
  for (const auto& [flag, given] : typed) {
    if (given) return flag;
  }
  return {};
}

TrainingPlan training_plan(const TrainingFlags& flags, const TrainingCounts& counts) {
  TrainingPlan plan;
  if (!flags.attack.empty()) {
    refuse_beside_attack(flags, counts);
    plan = attack_plan(parse_attack(flags.attack));
  } else {
    if (!flags.freeze.empty() && !flags.train_only.empty()) {
      throw UsageError("--train-only", "and --freeze exclude each other", "give one of the two");
    }
    if (!flags.freeze.empty()) plan.frozen = parse_parts(flags.freeze, "--freeze");
    if (!flags.train_only.empty()) {
      plan.frozen = parse_parts(flags.train_only, "--train-only");
      for (bool& part : plan.frozen) part = !part;
    }
    plan.input_gradient = flags.input_gradient;
    if (!flags.optimizer.empty()) {
      const auto found = find_optimizer(flags.optimizer);
      if (!found) refuse_word("--optimizer", flags.optimizer, "an optimiser", {"sgd", "momentum", "adam"});
      plan.optimizer = *found;
    }
    if (!flags.state_dtype.empty()) plan.state_dtype = parse_format_of(flags.state_dtype, "--state-dtype");
    if (!flags.gradient_dtype.empty()) plan.gradient_dtype = parse_format_of(flags.gradient_dtype, "--gradient-dtype");
    plan.master_weights = !flags.no_master_weights;
    if (plan.trains_nothing() && !plan.input_gradient) {
      throw UsageError(flags.train_only.empty() ? "--freeze" : "--train-only", "leaves nothing to train",
                       "leave a part unfrozen; --phase prefill is the forward pass alone");
    }
  }
  if (!flags.recompute.empty()) {
    const auto found = find_recomputation(flags.recompute);
    if (!found) refuse_word("--recompute", flags.recompute, "a way to recompute", {"none", "selective", "full"});
    plan.recomputation = *found;
  }
  plan.accumulation = counts.accumulation;
  plan.replicas = counts.replicas;
  plan.zero_stage = static_cast<int>(counts.zero_stage);
  return plan;
}

std::string trained_parts(const TrainingPlan& plan) {
  std::vector<std::string_view> words;
  for (std::size_t i = 0; i < kModelParts; ++i) {
    if (!plan.frozen[i]) words.push_back(to_string(static_cast<ModelPart>(i)));
  }
  if (words.empty()) return "none";
  return words.size() == kModelParts ? "all" : fmt::format("{}", fmt::join(words, ","));
}

void add_training_inputs(const TrainingPlan& plan, const TrainingFlags& flags, std::vector<InputValue>& inputs) {
  const auto add = [&](const char* name, auto value, bool given) { inputs.push_back({name, std::move(value), given}); };
  const bool attacks = !flags.attack.empty();
  add("trained_parts", trained_parts(plan), !flags.freeze.empty() || !flags.train_only.empty() || attacks);
  add("recompute", std::string(to_string(plan.recomputation)), !flags.recompute.empty());
  add("input_gradient", plan.input_gradient, flags.input_gradient || attacks);
  if (attacks) return add("attack_steps", plan.passes, true);
  add("optimizer", std::string(to_string(plan.optimizer)), !flags.optimizer.empty());
  add("state_dtype", std::string(to_string(plan.state_dtype)), !flags.state_dtype.empty());
  if (plan.gradient_dtype) add("gradient_dtype", std::string(to_string(*plan.gradient_dtype)), true);
  add("master_weights", plan.master_weights, flags.no_master_weights);
}

}  // namespace moecast
