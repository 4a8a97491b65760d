#include "models/plan/token_classes.h"

#include <algorithm>
#include <cmath>

#include "models/core/error.h"
#include "models/routing/expert_cache.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

constexpr double kShareTolerance = 1e-6;

template <class Shares>
void check_shares(const Shares& shares, const std::string& where) {
  double sum = 0;
  for (const auto& part : shares) {
    if (!(part.share >= 0)) throw InputError(where, "a share is below 0", "write shares that add up to 1");
    sum += part.share;
  }
  if (std::abs(sum - 1) > kShareTolerance) {
    throw InputError(where, "shares add up to " + std::to_string(sum) + " instead of 1", "write e.g. a:0.7,b:0.3");
  }
}

std::vector<bool> of_modality(const MoeBlock& block, const std::string& modality) {
  std::vector<bool> may;
  for (const ExpertGroup& group : block.experts) {
    may.insert(may.end(), static_cast<std::size_t>(group.count), group.modality.empty() || group.modality == modality);
  }
  return may;
}

std::vector<TokenClass> modality_classes(const MoeBlock& block, const Workload& workload) {
  std::vector<ModalityShare> shares = workload.modalities;
  if (shares.empty()) shares.push_back({block.experts.front().modality, 1});
  check_shares(shares, "modality");
  std::vector<TokenClass> classes;
  for (const ModalityShare& part : shares) {
    if (part.share > 0) classes.push_back({part.modality, part.share, of_modality(block, part.modality)});
  }
  return classes;
}

std::vector<TokenClass> task_classes(const MoeBlock& block, const TaskMix& mix) {
  check_shares(mix.tasks, "tasks");
  const std::int64_t experts = block.expert_count();
  const auto tasks = static_cast<std::int64_t>(mix.tasks.size());
  const std::int64_t shared = experts - tasks * mix.private_experts;
  if (shared < 0) {
    throw InputError("tasks",
                     std::to_string(tasks) + " tasks of " + std::to_string(mix.private_experts) +
                         " private experts need more than the " + std::to_string(experts) + " of a layer",
                     "give a task fewer experts of its own");
  }
  std::vector<TokenClass> classes;
  for (std::int64_t t = 0; t < tasks; ++t) {
    const TaskShare& part = mix.tasks[static_cast<std::size_t>(t)];
    if (part.share <= 0) continue;
    std::vector<bool> may(static_cast<std::size_t>(experts), false);
    std::fill_n(may.begin(), shared, true);
    std::fill_n(may.begin() + shared + t * mix.private_experts, mix.private_experts, true);
    classes.push_back({part.task, part.share, std::move(may)});
  }
  return classes;
}

}  // namespace

std::int64_t TokenClass::experts() const { return std::ranges::count(may_choose, true); }

bool splits_by_modality(const MoeBlock& block) {
  return std::ranges::any_of(block.experts, [](const ExpertGroup& g) { return !g.modality.empty(); });
}

std::vector<TokenClass> token_classes(const MoeBlock& block, const Workload& workload) {
  const bool modal = splits_by_modality(block);
  if (modal && !workload.tasks.tasks.empty()) {
    throw InputError("tasks", "experts are split by modality already", "leave out the tasks");
  }
  std::vector<TokenClass> classes;
  if (modal) {
    classes = modality_classes(block, workload);
  } else if (!workload.tasks.tasks.empty()) {
    classes = task_classes(block, workload.tasks);
  } else {
    return {{"", 1, std::vector<bool>(static_cast<std::size_t>(block.expert_count()), true)}};
  }
  for (const TokenClass& tokens : classes) {
    if (tokens.experts() < block.router.top_k) {
      throw InputError(modal ? "modality" : "tasks",
                       "tokens of \"" + tokens.name + "\" have " + std::to_string(tokens.experts()) +
                           " experts, but choose " + std::to_string(block.router.top_k),
                       modal ? "name a modality that the model's experts name" : "let tasks share more experts");
    }
  }
  return classes;
}

std::vector<double> class_inclusion(const MoeBlock& block, const Workload& workload, const TokenClass& tokens) {
  std::vector<double> popularity = expert_popularity(workload.load, block.expert_count());
  std::vector<double> chosen;
  double sum = 0;
  for (std::size_t e = 0; e < popularity.size(); ++e) {
    if (!tokens.may_choose[e]) continue;
    chosen.push_back(popularity[e]);
    sum += popularity[e];
  }
  if (!(sum > 0)) throw InputError("load", "gives no expert any weight that \"" + tokens.name + "\" may choose");
  if (chosen.size() < popularity.size()) {
    for (double& weight : chosen) weight /= sum;
  }
  const std::vector<double> inclusion = inclusion_probability(chosen, block.router.top_k);
  std::vector<double> all(popularity.size(), 0.0);
  std::size_t next = 0;
  for (std::size_t e = 0; e < all.size(); ++e) {
    if (tokens.may_choose[e]) all[e] = inclusion[next++];
  }
  return all;
}

std::vector<double> mixed_inclusion(const MoeBlock& block, const Workload& workload) {
  const std::vector<TokenClass> classes = token_classes(block, workload);
  if (classes.size() == 1) return class_inclusion(block, workload, classes.front());
  std::vector<double> mean(static_cast<std::size_t>(block.expert_count()), 0.0);
  for (const TokenClass& tokens : classes) {
    const std::vector<double> inclusion = class_inclusion(block, workload, tokens);
    for (std::size_t e = 0; e < mean.size(); ++e) mean[e] += tokens.share * inclusion[e];
  }
  return mean;
}

std::vector<double> mixed_touch_probability(const MoeBlock& block, const Workload& workload, double tokens) {
  const bool alone = workload.tasks.one_a_step && !workload.tasks.tasks.empty();
  std::vector<double> untouched(static_cast<std::size_t>(block.expert_count()), alone ? 0.0 : 1.0);
  for (const TokenClass& part : token_classes(block, workload)) {
    const std::vector<double> touched =
        touch_probability(class_inclusion(block, workload, part), alone ? tokens : part.share * tokens);
    for (std::size_t e = 0; e < touched.size(); ++e) {
      if (alone) {
        untouched[e] += part.share * (1 - touched[e]);
      } else {
        untouched[e] *= 1 - touched[e];
      }
    }
  }
  for (double& u : untouched) u = 1 - u;
  return untouched;
}

}  // namespace moecast
