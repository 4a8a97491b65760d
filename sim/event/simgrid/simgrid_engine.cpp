#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <simgrid/s4u.hpp>
#include <unordered_map>

#include "models/core/error.h"
#include "sim/event/event_graph.h"
#include "sim/event/simgrid_module.h"

namespace moecast {
namespace {

namespace sg = simgrid::s4u;

/// SimGrid's clock runs in microseconds, so that its absolute precisions are far below a nanosecond.
constexpr double kMicroseconds = 1e6;
/// Ticks a microsecond of the host that delays run on: amounts far above SimGrid's least amount of work.
constexpr double kTicks = 1e6;
constexpr int kConcurrentDelays = 1 << 20;
/// SimGrid counts a transfer in whole units. The smallest flow of a graph gets so many at least, so that rounding stays
/// below a hundred thousandth, and the largest no more than 64 bits hold.
constexpr double kLeastUnits = 1 << 16;
constexpr double kMostUnits = 1LL << 62;

/// Resources as hosts whose speed is their capacity; routes of several links as links between hosts of their own.
class Platform {
 public:
  explicit Platform(std::span<const EventGraph* const> graphs) : engine_(&argument_count_, arguments_.data()) {
    const EventGraph& graph = *graphs.front();
    for (const EventGraph* one : graphs) collect_routes(*one);
    units_ = units_of(graphs);
    zone_ = sg::create_full_zone("ranks");
    clock_ = zone_->create_host("clock", kTicks);
    clock_->set_core_count(kConcurrentDelays);
    for (std::size_t r = 0; r < graph.resources().size(); ++r) {
      const double capacity = graph.resources()[r].capacity / kMicroseconds;
      if (linked_.contains(static_cast<int>(r))) {
        sg::Link* link = zone_->create_link("link " + std::to_string(r), capacity * units_);
        link->set_latency(0);
        links_[static_cast<int>(r)] = link->seal();
        hosts_.push_back(nullptr);
      } else {
        hosts_.push_back(zone_->create_host("resource " + std::to_string(r), capacity));
      }
    }
    int number = 0;
    for (auto& [route, ends] : routes_) {
      ends = {zone_->create_host("from " + std::to_string(number), 1),
              zone_->create_host("to " + std::to_string(number), 1)};
      ++number;
      std::vector<sg::LinkInRoute> links;
      for (const int resource : route.resources) links.emplace_back(links_.at(resource));
      if (std::isfinite(route.bound)) {
        // A transfer between hosts takes no rate of its own: a link gives it, to each that goes over it.
        sg::Link* own =
            zone_->create_link("rate " + std::to_string(number), route.bound / kMicroseconds * units_)->set_latency(0);
        links.emplace_back(own->set_sharing_policy(sg::Link::SharingPolicy::FATPIPE)->seal());
      }
      zone_->add_route(ends.first->get_netpoint(), ends.second->get_netpoint(), nullptr, nullptr, links, false);
    }
    zone_->seal();
  }

  [[nodiscard]] double now() const { return sg::Engine::get_clock() / kMicroseconds; }
  void run() const { engine_.run(); }

  [[nodiscard]] sg::ActivityPtr delay(double seconds) const {
    return sg::Exec::init()->set_flops_amount(seconds * kMicroseconds * kTicks)->set_host(clock_);
  }
  [[nodiscard]] sg::ActivityPtr serve(const EventGraph& graph, const EventGraph::StoredDemand& demand) const {
    const auto resources = graph.resources_of(demand);
    const double bound = demand.bound / kMicroseconds;
    if (sg::Host* host = hosts_[static_cast<std::size_t>(resources.front())]; host != nullptr) {
      sg::ExecPtr exec = sg::Exec::init()->set_flops_amount(demand.amount)->set_host(host);
      if (std::isfinite(bound)) exec->set_bound(bound);
      return exec;
    }
    const auto& ends = routes_.at({{resources.begin(), resources.end()}, demand.bound});
    return sg::Comm::sendto_init(ends.first, ends.second)
        ->set_payload_size(std::max<std::uint64_t>(1, std::llround(demand.amount * units_)));
  }

 private:
  struct Route {
    std::vector<int> resources;
    double bound;  ///< of each flow; infinity: none
    auto operator<=>(const Route&) const = default;
  };

  /// Units a byte: a power of two, 1 unless something is tiny.
  [[nodiscard]] double units_of(std::span<const EventGraph* const> graphs) const {
    double least = kLeastUnits;
    double most = 1;
    for (const EventGraph* graph : graphs) {
      for (int task = 0; task < graph->tasks(); ++task) {
        for (const EventGraph::StoredDemand& demand : graph->demands(task)) {
          if (!linked_.contains(graph->resources_of(demand).front())) continue;
          least = std::min(least, demand.amount);
          most = std::max(most, demand.amount);
        }
      }
    }
    return std::exp2(std::floor(std::log2(std::min(kLeastUnits / least, kMostUnits / most))));
  }

  void collect_routes(const EventGraph& graph) {
    for (int task = 0; task < graph.tasks(); ++task) {
      for (const EventGraph::StoredDemand& demand : graph.demands(task)) {
        const auto resources = graph.resources_of(demand);
        if (resources.size() < 2) continue;
        routes_.try_emplace(Route{{resources.begin(), resources.end()}, demand.bound});
        linked_.insert(resources.begin(), resources.end());
      }
    }
    // A resource that several-link flows use is a link for everybody.
    for (int task = 0; task < graph.tasks(); ++task) {
      for (const EventGraph::StoredDemand& demand : graph.demands(task)) {
        const auto resources = graph.resources_of(demand);
        if (resources.size() == 1 && linked_.contains(resources.front())) {
          routes_.try_emplace(Route{{resources.begin(), resources.end()}, demand.bound});
        }
      }
    }
  }

  // The defaults model TCP over clusters: windows, cross traffic and sharing by latency, none of which a fabric has.
  static std::vector<std::string> options() {
    return {"moecast",
            "--cfg=network/model:CM02",
            "--cfg=network/crosstraffic:0",
            "--cfg=network/TCP-gamma:1e15",
            "--cfg=network/weight-S:1e9",
            "--cfg=surf/precision:1e-9",
            "--cfg=maxmin/precision:1e-9",
            "--log=root.thres:critical"};
  }
  std::vector<std::string> words_ = options();
  std::vector<char*> arguments_ = [this] {
    std::vector<char*> pointers;
    for (std::string& word : words_) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    return pointers;
  }();
  int argument_count_ = static_cast<int>(words_.size());
  sg::Engine engine_;
  sg::NetZone* zone_ = nullptr;
  sg::Host* clock_ = nullptr;
  std::vector<sg::Host*> hosts_;
  std::map<int, sg::Link*> links_;
  std::map<Route, std::pair<sg::Host*, sg::Host*>> routes_;
  std::set<int> linked_;
  double units_ = 1;
};

/// Runs one graph: completions start what waited for them.
class Run {
 public:
  Run(const Platform& platform, const EventGraph& graph) : platform_(platform), graph_(graph) {}

  EventTimes run() {
    const auto tasks = static_cast<std::size_t>(graph_.tasks());
    times_.start_s.assign(tasks, 0);
    times_.end_s.assign(tasks, 0);
    times_.contended = true;
    waits_.assign(tasks, 0);
    open_.assign(tasks, 0);
    next_.assign(tasks, {});
    for (int task = 0; task < graph_.tasks(); ++task) {
      for (const int earlier : graph_.after(task)) next_[static_cast<std::size_t>(earlier)].push_back(task);
      waits_[static_cast<std::size_t>(task)] = static_cast<int>(graph_.after(task).size());
    }
    begin_ = platform_.now();
    for (int task = 0; task < graph_.tasks(); ++task) {
      if (graph_.after(task).empty()) start(task);
    }
    platform_.run();
    return std::move(times_);
  }

  void completed(const sg::Activity& activity) {
    const auto found = running_.find(&activity);
    if (found == running_.end()) return;
    const auto [task, was_delay, keep] = found->second;
    running_.erase(found);
    if (was_delay) {
      serve(task);
    } else if (--open_[static_cast<std::size_t>(task)] == 0) {
      finish(task);
    }
  }

 private:
  struct Running {
    int task;
    bool delay;
    sg::ActivityPtr activity;
  };

  void begin(int task, bool delay, const sg::ActivityPtr& activity) {
    running_.emplace(activity.get(), Running{task, delay, activity});
    activity->start();
  }
  void start(int task) {
    times_.start_s[static_cast<std::size_t>(task)] = platform_.now() - begin_;
    if (graph_.delay_s(task) > 0) {
      begin(task, true, platform_.delay(graph_.delay_s(task)));
    } else {
      serve(task);
    }
  }
  void serve(int task) {
    // SimGrid never ends a transfer of nothing.
    const auto demands = graph_.demands(task);
    int& open = open_[static_cast<std::size_t>(task)];
    open = static_cast<int>(std::ranges::count_if(demands, [](const auto& demand) { return demand.amount > 0; }));
    if (open == 0) return finish(task);
    for (const EventGraph::StoredDemand& demand : demands) {
      if (demand.amount > 0) begin(task, false, platform_.serve(graph_, demand));
    }
  }
  void finish(int task) {
    const double end = platform_.now() - begin_;
    times_.end_s[static_cast<std::size_t>(task)] = end;
    times_.makespan_s = std::max(times_.makespan_s, end);
    for (const int later : next_[static_cast<std::size_t>(task)]) {
      if (--waits_[static_cast<std::size_t>(later)] == 0) start(later);
    }
  }

  const Platform& platform_;
  const EventGraph& graph_;
  EventTimes times_;
  double begin_ = 0;
  std::vector<int> waits_, open_;
  std::vector<std::vector<int>> next_;
  std::unordered_map<const sg::Activity*, Running> running_;
};

std::vector<EventTimes> run_all(std::span<const EventGraph* const> graphs) {
  const Platform platform(graphs);
  Run* current = nullptr;
  sg::Activity::on_completion_cb([&current](const sg::Activity& activity) {
    if (current != nullptr) current->completed(activity);
  });
  std::vector<EventTimes> all;
  for (const EventGraph* graph : graphs) {
    Run run(platform, *graph);
    current = &run;
    all.push_back(run.run());
    current = nullptr;
  }
  return all;
}

}  // namespace
}  // namespace moecast

/// The one symbol of this module: see sim/event/simgrid_module.h.
extern "C" void moecast_run_simgrid(const moecast::EventGraph* const* graphs, std::size_t count,
                                    std::vector<moecast::EventTimes>* out) {
  *out = moecast::run_all(std::span(graphs, count));
}
