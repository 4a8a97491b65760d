#include <algorithm>
#include <cmath>

#include "sim/event/engine.h"

namespace moecast {
namespace {

struct Use {
  int resource;
  double start, end;
};

/// Whether two uses of one resource overlap by more than rounding.
bool overlap(std::vector<Use>& uses) {
  std::sort(uses.begin(), uses.end(), [](const Use& a, const Use& b) {
    return a.resource != b.resource ? a.resource < b.resource : a.start < b.start;
  });
  double end = 0;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    const bool same = i > 0 && uses[i].resource == uses[i - 1].resource;
    if (same && uses[i].start < end * (1 - 1e-12)) return true;
    end = same ? std::max(end, uses[i].end) : uses[i].end;
  }
  return false;
}

}  // namespace

bool schedule_alone(const EventGraph& graph, EventTimes& times) {
  const auto tasks = static_cast<std::size_t>(graph.tasks());
  times.start_s.assign(tasks, 0);
  times.end_s.assign(tasks, 0);
  times.makespan_s = 0;
  times.contended = false;
  static thread_local std::vector<double> busy_until;
  static thread_local std::vector<Use> uses;
  busy_until.assign(graph.resources().size(), 0);
  uses.clear();
  bool in_order = true;
  for (int task = 0; task < graph.tasks(); ++task) {
    const auto at = static_cast<std::size_t>(task);
    double start = 0;
    for (const int earlier : graph.after(task)) start = std::max(start, times.end_s[static_cast<std::size_t>(earlier)]);
    times.start_s[at] = start;
    const double ready = start + graph.delay_s(task);
    double end = ready;
    for (const EventGraph::StoredDemand& demand : graph.demands(task)) {
      const double done = ready + demand.amount / graph.rate_alone(demand);
      end = std::max(end, done);
      for (const int resource : graph.resources_of(demand)) {
        double& until = busy_until[static_cast<std::size_t>(resource)];
        in_order = in_order && ready >= until * (1 - 1e-12);
        until = std::max(until, done);
        uses.push_back({resource, ready, done});
      }
    }
    times.end_s[at] = end;
    times.makespan_s = std::max(times.makespan_s, end);
  }
  return in_order || !overlap(uses);
}

EventTimes simulate(const EventGraph& graph) {
  EventTimes times;
  if (schedule_alone(graph, times)) return times;
  const EventGraph* one = &graph;
  times = std::move(simulate_events(std::span(&one, 1)).front());
  times.contended = true;
  return times;
}

std::vector<double> max_min_rates(const EventGraph& graph, std::span<const EventGraph::StoredDemand> active) {
  std::vector<double> rates(active.size(), 0);
  std::vector<bool> fixed(active.size(), false);
  std::vector<double> left;
  for (const EventResource& resource : graph.resources()) left.push_back(resource.capacity);
  for (std::size_t open = active.size(); open > 0;) {
    std::vector<int> users(left.size(), 0);
    for (std::size_t i = 0; i < active.size(); ++i) {
      if (fixed[i]) continue;
      for (const int resource : graph.resources_of(active[i])) ++users[static_cast<std::size_t>(resource)];
    }
    double step = std::numeric_limits<double>::infinity();
    for (std::size_t r = 0; r < left.size(); ++r) {
      if (users[r] > 0) step = std::min(step, left[r] / users[r]);
    }
    for (std::size_t i = 0; i < active.size(); ++i) {
      if (!fixed[i]) step = std::min(step, active[i].bound - rates[i]);
    }
    for (std::size_t i = 0; i < active.size(); ++i) {
      if (fixed[i]) continue;
      rates[i] += step;
      for (const int resource : graph.resources_of(active[i])) left[static_cast<std::size_t>(resource)] -= step;
    }
    for (std::size_t i = 0; i < active.size(); ++i) {
      if (fixed[i]) continue;
      bool full = rates[i] >= active[i].bound * (1 - 1e-12);
      for (const int resource : graph.resources_of(active[i])) {
        const auto r = static_cast<std::size_t>(resource);
        full = full || left[r] <= graph.resources()[r].capacity * 1e-12;
      }
      if (!full) continue;
      fixed[i] = true;
      --open;
    }
  }
  return rates;
}

}  // namespace moecast
