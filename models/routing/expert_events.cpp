#include "models/routing/expert_events.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <numeric>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostEventExperts = 1 << 16;
constexpr std::size_t kMostEvents = 100'000;
constexpr std::array<std::string_view, 3> kEventKinds{"add", "remove", "rebalance"};

ExpertEvent read_event(const JsonView& view) {
  view.refuse_unknown_keys({"step", "add", "remove", "rebalance"});
  ExpertEvent event;
  event.step = view.at("step").as_int(0);
  if (view.has("add") + view.has("remove") + view.has("rebalance") != 1) {
    throw InputError(view.where(), "is no event", R"(give one of "add", "remove" and "rebalance")");
  }
  if (view.has("add")) {
    const JsonView add = view.at("add");
    add.refuse_unknown_keys({"popularity", "copy_of"});
    event.popularity = add.find_number("popularity", 0, 1e6).value_or(1);
    if (const auto id = add.find_int("copy_of", 0, kMostEventExperts)) event.copy_of = static_cast<int>(*id);
  } else if (view.has("remove")) {
    event.kind = ExpertEvent::Kind::remove;
    const JsonView what = view.at("remove");
    if (!what.is_string()) {
      event.expert = static_cast<int>(what.as_int(0, kMostEventExperts));
    } else if (what.as_string() != "least_loaded") {
      throw InputError(what.where(), "\"" + what.as_string() + "\" is no expert", "write a number or least_loaded");
    }
  } else {
    event.kind = ExpertEvent::Kind::rebalance;
    if (!view.at("rebalance").as_bool()) throw InputError(view.at("rebalance").where(), "is no event", "write true");
  }
  return event;
}

}  // namespace

std::string_view to_string(ExpertEvent::Kind kind) { return kEventKinds[static_cast<std::size_t>(kind)]; }

ExpertEvents parse_expert_events(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  const JsonView view(json, where);
  view.refuse_unknown_keys({"moecast_expert_events", "max_experts", "pruned_rows", "events"});
  static_cast<void>(view.at("moecast_expert_events").as_int(1, 1));
  ExpertEvents all;
  if (const auto most = view.find_int("max_experts", 1, kMostEventExperts)) all.most = static_cast<int>(*most);
  if (const auto pruned = view.find_string("pruned_rows")) {
    if (*pruned != "rerouted" && *pruned != "dropped") {
      throw InputError(view.at("pruned_rows").where(), "\"" + *pruned + "\" is not known", "rerouted or dropped");
    }
    all.pruned = *pruned == "dropped" ? PrunedRows::dropped : PrunedRows::rerouted;
  }
  const JsonView events = view.at("events");
  if (!events.is_array()) throw InputError(events.where(), "is no list", "write [{\"step\": 0, \"remove\": 3}]");
  if (events.size() > kMostEvents)
    throw InputError(events.where(), fmt::format("has more than {} events", kMostEvents));
  for (std::size_t i = 0; i < events.size(); ++i) {
    all.events.push_back(read_event(events.at(i)));
    if (i > 0 && all.events[i].step < all.events[i - 1].step) {
      throw InputError(events.at(i).where(),
                       fmt::format("step {} comes after step {}", all.events[i].step, all.events[i - 1].step),
                       "sort the events by their steps");
    }
  }
  return all;
}

ExpertSet::ExpertSet(std::vector<double> popularity, int ranks, int top_k, std::optional<int> most, PrunedRows pruned)
    : ranks_(ranks), top_k_(top_k), most_(most), pruned_(pruned) {
  const Placement placement = contiguous_placement(static_cast<int>(popularity.size()), ranks);
  for (std::size_t e = 0; e < popularity.size(); ++e) {
    const int id = static_cast<int>(e);
    all_.push_back({id, popularity[e], placement.ranks_of(id).front(), true});
  }
  static_cast<void>(inclusion());  // throws on weights that choose nothing
}

int ExpertSet::experts() const {
  return static_cast<int>(std::ranges::count_if(all_, [](const Expert& e) { return e.alive; }));
}

std::vector<int> ExpertSet::counts() const {
  std::vector<int> held(static_cast<std::size_t>(ranks_), 0);
  for (const Expert& e : all_) held[static_cast<std::size_t>(e.rank)] += e.alive ? 1 : 0;
  return held;
}

int ExpertSet::places() const {
  const std::vector<int> held = counts();
  return *std::ranges::max_element(held);
}

std::vector<double> ExpertSet::inclusion() const {
  std::vector<double> weights(all_.size());
  double sum = 0;
  for (std::size_t i = 0; i < all_.size(); ++i) {
    const bool chosen = all_[i].alive || pruned_ == PrunedRows::dropped;
    weights[i] = chosen ? all_[i].weight : 0;
    sum += weights[i];
  }
  if (!(sum > 0)) throw InputError("load", "gives no expert any weight", "one weight must be above zero");
  for (double& weight : weights) weight /= sum;
  std::vector<double> chosen = inclusion_probability(weights, top_k_);
  for (std::size_t i = 0; i < all_.size(); ++i) chosen[i] = all_[i].alive ? chosen[i] : 0;
  return chosen;
}

std::vector<double> ExpertSet::rows_per_rank(double tokens) const {
  const std::vector<double> chosen = inclusion();
  std::vector<double> rows(static_cast<std::size_t>(ranks_), 0.0);
  for (std::size_t i = 0; i < all_.size(); ++i) rows[static_cast<std::size_t>(all_[i].rank)] += tokens * chosen[i];
  return rows;
}

std::vector<double> ExpertSet::popularity_of_places() const {
  const int places_of_rank = places();
  std::vector<double> weights(static_cast<std::size_t>(places_of_rank) * static_cast<std::size_t>(ranks_), 0.0);
  std::vector<int> used(static_cast<std::size_t>(ranks_), 0);
  for (const Expert& e : all_) {
    if (!e.alive) continue;
    weights[static_cast<std::size_t>(e.rank * places_of_rank + used[static_cast<std::size_t>(e.rank)]++)] = e.weight;
  }
  return weights;
}

ExpertSet::Expert& ExpertSet::find(int id) {
  const auto found = std::ranges::find_if(all_, [&](const Expert& e) { return e.id == id && e.alive; });
  if (found == all_.end()) throw InputError("events", fmt::format("there is no expert {}", id));
  return *found;
}

void ExpertSet::add(const ExpertEvent& event, ExpertChange& change) {
  const int before = experts();
  if (before >= most_.value_or(static_cast<int>(kMostEventExperts))) {
    throw InputError("events", fmt::format("an expert is added to {}, the most there may be", before),
                     "raise max_experts");
  }
  double sum = 0;
  int id = 0;
  for (const Expert& e : all_) {
    if (e.alive) sum += e.weight;
    id = std::max(id, e.id + 1);
  }
  const std::vector<int> held = counts();
  const std::vector<double> rows = rows_per_rank(1);
  int rank = 0;
  for (int r = 1; r < ranks_; ++r) {
    const auto at = static_cast<std::size_t>(r);
    const auto best = static_cast<std::size_t>(rank);
    if (held[at] < held[best] || (held[at] == held[best] && rows[at] < rows[best])) rank = r;
  }
  std::optional<int> from;
  if (event.copy_of) from = find(*event.copy_of).rank;
  all_.push_back({id, event.popularity * sum / before, rank, true});
  change.expert = id;
  change.moves.push_back({id, from, rank});
}

void ExpertSet::remove(const ExpertEvent& event, ExpertChange& change) {
  if (experts() <= top_k_) {
    throw InputError("events", fmt::format("an expert is removed of {}, as many as a token chooses", experts()));
  }
  Expert* gone = nullptr;
  if (event.expert) {
    gone = &find(*event.expert);
  } else {
    for (Expert& e : all_) {
      if (e.alive && (gone == nullptr || e.weight <= gone->weight)) gone = &e;  // of equals the one added last
    }
  }
  change.expert = gone->id;
  if (pruned_ == PrunedRows::dropped) {
    gone->alive = false;  // tokens go on choosing it
  } else {
    all_.erase(all_.begin() + (gone - all_.data()));
  }
}

void ExpertSet::rebalance(ExpertChange& change) {
  const std::vector<double> chosen = inclusion();
  std::vector<double> rows;
  std::vector<std::size_t> alive;
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (!all_[i].alive) continue;
    alive.push_back(i);
    rows.push_back(chosen[i]);
  }
  const auto experts = static_cast<int>(alive.size());
  const int share = (experts + ranks_ - 1) / ranks_;
  // Spare places stay empty: an expert has one copy.
  std::vector<std::size_t> order(alive.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return rows[a] > rows[b]; });
  std::vector<double> load(static_cast<std::size_t>(ranks_), 0.0);
  std::vector<int> used(static_cast<std::size_t>(ranks_), 0);
  for (const std::size_t at : order) {
    Expert& expert = all_[alive[at]];
    int best = -1;
    for (int r = 0; r < ranks_; ++r) {
      const auto rank = static_cast<std::size_t>(r);
      if (used[rank] >= share) continue;
      // Of equally loaded ranks the one that holds it already: nothing moves.
      const bool better = best < 0 || load[rank] < load[static_cast<std::size_t>(best)] ||
                          (load[rank] == load[static_cast<std::size_t>(best)] && r == expert.rank);
      if (better) best = r;
    }
    load[static_cast<std::size_t>(best)] += rows[at];
    ++used[static_cast<std::size_t>(best)];
    if (best == expert.rank) continue;
    change.moves.push_back({expert.id, expert.rank, best});
    expert.rank = best;
  }
}

ExpertChange ExpertSet::apply(const ExpertEvent& event) {
  ExpertChange change;
  const int before = places();
  switch (event.kind) {
    case ExpertEvent::Kind::add: add(event, change); break;
    case ExpertEvent::Kind::remove: remove(event, change); break;
    case ExpertEvent::Kind::rebalance: rebalance(change); break;
  }
  change.places_changed = places() != before;
  return change;
}

}  // namespace moecast
