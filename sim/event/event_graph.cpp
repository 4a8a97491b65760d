#include "sim/event/event_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr std::array<std::string_view, 6> kTaskNames{"kernel",     "dispatch", "combine",
                                                     "collective", "transfer", "launch"};

/// `what` makes the words, only when they are needed.
template <typename What>
void need_graph(bool holds, const What& what) {
  if (!holds) throw InputError("event graph", what());
}

}  // namespace

std::string_view to_string(TaskKind kind) { return kTaskNames[static_cast<std::size_t>(kind)]; }

int EventGraph::add_resource(std::string name, double capacity) {
  need_graph(std::isfinite(capacity) && capacity > 0,
             [&] { return fmt::format("{} has a capacity of {}; it must be finite and above zero", name, capacity); });
  resources_.push_back({std::move(name), capacity, 0});
  return static_cast<int>(resources_.size()) - 1;
}

void EventGraph::leave_to_others(int resource, double share) {
  need_graph(resource >= 0 && resource < std::ssize(resources_), [&] { return "others take an unknown resource"; });
  need_graph(share >= 0 && share < 1, [&] { return fmt::format("others take {} of a resource", share); });
  EventResource& taken = resources_[index(resource)];
  const double whole = taken.capacity + taken.others;
  taken.others = whole * share;
  taken.capacity = whole * (1 - share);
}

int EventGraph::add_task(TaskKind kind, int rank, int stream, double delay_s, std::span<const Demand> demands,
                         std::span<const int> after) {
  const int task = tasks();
  need_graph(std::isfinite(delay_s) && delay_s >= 0, [&] { return fmt::format("task {} waits {} s", task, delay_s); });
  for (const int earlier : after) {
    need_graph(earlier >= 0 && earlier < task,
               [&] { return fmt::format("task {} waits for task {}, which is not older", task, earlier); });
  }
  for (const Demand& demand : demands) {
    need_graph(
        std::isfinite(demand.amount) && demand.amount >= 0 && demand.bound > 0 && !demand.resources.empty(), [&] {
          return fmt::format("task {} demands {} units of {} resources", task, demand.amount, demand.resources.size());
        });
    if (demand.amount == 0) continue;  // never starts, never ends
    for (const int resource : demand.resources) {
      need_graph(resource >= 0 && resource < std::ssize(resources_),
                 [&] { return fmt::format("task {} uses an unknown resource", task); });
    }
    demands_.push_back({demand.amount, demand.bound, static_cast<std::uint32_t>(demand_resources_.size()),
                        static_cast<std::uint32_t>(demand.resources.size())});
    demand_resources_.insert(demand_resources_.end(), demand.resources.begin(), demand.resources.end());
  }
  after_.insert(after_.end(), after.begin(), after.end());
  delay_.push_back(delay_s);
  kind_.push_back(kind);
  rank_.push_back(rank);
  stream_.push_back(stream);
  after_first_.push_back(static_cast<std::uint32_t>(after_.size()));
  demand_first_.push_back(static_cast<std::uint32_t>(demands_.size()));
  return task;
}

void EventGraph::name_task(int task, std::string name) {
  need_graph(names_.empty() || names_.back().first < task,
             [&] { return fmt::format("task {} is named after a later one", task); });
  names_.emplace_back(task, std::move(name));
}

std::string_view EventGraph::name(int task) const {
  const auto found = std::lower_bound(names_.begin(), names_.end(), task,
                                      [](const auto& named, int wanted) { return named.first < wanted; });
  return found == names_.end() || found->first != task ? to_string(kind(task)) : std::string_view(found->second);
}

void EventGraph::clear_tasks() {
  for (auto* values : {&rank_, &stream_, &after_, &demand_resources_}) values->clear();
  delay_.clear();
  kind_.clear();
  demands_.clear();
  names_.clear();
  after_first_.assign(1, 0);
  demand_first_.assign(1, 0);
}

double EventGraph::rate_alone(const StoredDemand& demand) const {
  double rate = demand.bound;
  for (const int resource : resources_of(demand)) {
    rate = std::min(rate, resources_[static_cast<std::size_t>(resource)].capacity);
  }
  return rate;
}

}  // namespace moecast
