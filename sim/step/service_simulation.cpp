#include "sim/step/service_simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <queue>

#include "models/core/error.h"
#include "sim/step/service_statistics.h"

namespace moecast {
namespace {

constexpr std::int64_t kStepsBetweenChecks = 4096;

struct Event {
  enum class Kind { step_ends, stage_free, transfer_ends, enters };
  double time_s = 0;
  std::uint64_t order = 0;  ///< earlier planned first
  Kind kind = Kind::step_ends;
  std::size_t index = 0;  ///< of the worker or job
  bool operator>(const Event& other) const {
    return time_s != other.time_s ? time_s > other.time_s : order > other.order;
  }
};

/// One micro-batch of an engine.
struct Worker {
  ServiceInstance instance;
  std::size_t engine = 0;
  bool busy = false;
};

struct EngineState {
  std::vector<double> free_s;  ///< of each stage: when it has handed over all steps that began
  int steps = 0;               ///< on their way
  double idle_since_s = -1;
  double link_free_s = 0;
};

class Simulation {
 public:
  Simulation(std::span<const ServiceRequest> requests, const ServiceSetup& setup, const ServiceStepSeconds& seconds)
      : setup_(setup), seconds_(seconds), jobs_(requests.size()), home_(requests.size()) {
    using Role = ServiceInstance::Role;
    const int first = setup.split ? setup.split->prefill_instances : setup.instances;
    const int second = setup.split ? setup.split->decode_instances : 0;
    const int stages = setup.pipeline.stages;
    const ServiceLimits limits = micro_batch_limits(setup);
    entry_ = static_cast<std::size_t>(first * stages);
    workers_.reserve(static_cast<std::size_t>((first + second) * stages));
    for (int i = 0; i < first + second; ++i) {
      const Role role = !setup.split ? Role::both : i < first ? Role::prefill : Role::decode;
      for (int part = 0; part < stages; ++part) {
        workers_.push_back({ServiceInstance(limits, role, jobs_), static_cast<std::size_t>(i)});
      }
      engines_.push_back({std::vector<double>(static_cast<std::size_t>(stages), 0.0)});
    }
    for (std::size_t i = 0; i < requests.size(); ++i) {
      jobs_[i].prompt = jobs_[i].to_prefill = requests[i].prompt;
      jobs_[i].output = requests[i].output;
      jobs_[i].priority = requests[i].priority;
      jobs_[i].arrival_s = setup.clients ? 0 : requests[i].arrival_s;
    }
    tally_.instances = static_cast<double>(engines_.size());
    if (limits.kv_blocks) tally_.blocks = static_cast<double>(*limits.kv_blocks) * static_cast<double>(workers_.size());
    now_ = jobs_.front().arrival_s;
    tally_.begin(now_);
    const std::size_t clients = static_cast<std::size_t>(setup.clients.value_or(0));
    free_to_come_ = setup.clients ? std::min(clients, jobs_.size()) : jobs_.size();
  }

  ServiceOutcome run() {
    while (done_ < jobs_.size()) {
      if (steps_ / kStepsBetweenChecks != checked_) {
        checked_ = steps_ / kStepsBetweenChecks;
        if (setup_.stop != nullptr && setup_.stop->load()) {
          ServiceOutcome outcome;
          outcome.stopped = true;
          return outcome;
        }
        if (setup_.progress) setup_.progress(static_cast<double>(done_) / static_cast<double>(jobs_.size()));
      }
      advance();
    }
    std::vector<ServiceCounts> counts;
    for (const Worker& worker : workers_) counts.push_back(worker.instance.counts());
    return service_outcome(std::move(jobs_), setup_, tally_, counts);
  }

 private:
  [[nodiscard]] bool more_arrivals() const { return arrived_ < free_to_come_; }

  /// Everything that happens at the next point in time; then instances begin steps.
  void advance() {
    double next = events_.empty() ? INFINITY : events_.top().time_s;
    if (more_arrivals()) next = std::min(next, jobs_[arrived_].arrival_s);
    next = std::max(next, now_);
    tally_.pass(next);
    now_ = next;
    while (!events_.empty() && events_.top().time_s <= now_) {
      const Event event = events_.top();
      events_.pop();
      switch (event.kind) {
        case Event::Kind::step_ends: end_step(event.index); break;
        case Event::Kind::stage_free: break;  // steps begin below
        case Event::Kind::transfer_ends: end_transfer(event.index); break;
        case Event::Kind::enters: enter(event.index);
      }
    }
    while (more_arrivals() && jobs_[arrived_].arrival_s <= now_) arrive();
    for (std::size_t i = 0; i < workers_.size(); ++i) begin_step(i);
    refresh();
  }

  void arrive() {
    const std::size_t job = arrived_++;
    if (job == setup_.warmup_requests) tally_.open_window();
    ++tally_.in_flight;
    std::size_t waiting = 0;
    for (const Worker& worker : workers_) waiting += worker.instance.waiting();
    tally_.quarters[job * tally_.quarters.size() / jobs_.size()].add(static_cast<double>(waiting));
    if (arrived_ == jobs_.size()) tally_.close_window();
    if (setup_.front_s > 0) {
      events_.push({now_ + setup_.front_s, order_++, Event::Kind::enters, job});
    } else {
      enter(job);
    }
  }

  void enter(std::size_t job) {
    jobs_[job].entered_s = now_;
    home_[job] = least_loaded(0, entry_);
    workers_[home_[job]].instance.enqueue(job);
  }

  /// Micro-batch of the least loaded engine of these workers.
  [[nodiscard]] std::size_t least_loaded(std::size_t begin, std::size_t end) const {
    const auto load = [&](std::size_t i) { return workers_[i].instance.waiting() + workers_[i].instance.running(); };
    const auto stages = static_cast<std::size_t>(setup_.pipeline.stages);
    const auto of_engine = [&](std::size_t first) {
      std::size_t sum = 0;
      for (std::size_t i = first; i < first + stages; ++i) sum += load(i);
      return sum;
    };
    std::size_t engine = begin;
    for (std::size_t i = begin + stages; i < end; i += stages) {
      if (of_engine(i) < of_engine(engine)) engine = i;
    }
    std::size_t best = engine;
    for (std::size_t i = engine + 1; i < engine + stages; ++i) {
      if (load(i) < load(best)) best = i;
    }
    return best;
  }

  void begin_step(std::size_t index) {
    Worker& worker = workers_[index];
    if (worker.busy || worker.instance.waiting() + worker.instance.running() == 0) return;
    EngineState& engine = engines_[worker.engine];
    if (engine.free_s.front() > now_) return;
    ServiceStep step = worker.instance.plan();
    if (step.empty()) return;  // what waits needs cache that is being moved
    step.after_idle = engine.steps == 0 && engine.idle_since_s < now_;
    worker.instance.mark_started(now_);
    const double ends = pass_stages(engine, step);
    ++steps_;
    worker.busy = true;
    if (engine.steps++ == 0) ++tally_.busy;
    events_.push({ends, order_++, Event::Kind::step_ends, index});
    if (engine.free_s.size() > 1) events_.push({engine.free_s.front(), order_++, Event::Kind::stage_free, 0});
  }

  /// @return when the step leaves the last stage.
  [[nodiscard]] double pass_stages(EngineState& engine, ServiceStep& step) const {
    const std::size_t stages = engine.free_s.size();
    double here = now_;  // handed over to this stage
    for (std::size_t s = 0; s < stages; ++s) {
      step.stage = static_cast<int>(s);
      here += checked_seconds(seconds_(step));
      if (s + 1 < stages) {
        here = std::max(here, engine.free_s[s + 1]);
        if (setup_.pipeline.send) here += setup_.pipeline.send(step);
      }
      engine.free_s[s] = here;
    }
    return here;
  }

  static double checked_seconds(double duration) {
    if (!(duration > 0) || !std::isfinite(duration)) {
      throw InputError("step", fmt::format("takes {} s", duration), "a step takes a positive time");
    }
    return duration;
  }

  void end_step(std::size_t index) {
    Worker& worker = workers_[index];
    EngineState& engine = engines_[worker.engine];
    worker.busy = false;
    engine.idle_since_s = now_;
    if (--engine.steps == 0) --tally_.busy;
    const std::int64_t before = worker.instance.counts().generated_tokens;
    for (const std::size_t job : worker.instance.complete(now_)) {
      if (jobs_[job].finished_s >= 0) {
        finish();
      } else {
        start_transfer(engine, job);
      }
    }
    tally_.generated += static_cast<double>(worker.instance.counts().generated_tokens - before);
  }

  void finish() {
    ++done_;
    --tally_.in_flight;
    ++tally_.finished;
    if (!setup_.clients || free_to_come_ == jobs_.size()) return;
    jobs_[free_to_come_++].arrival_s = now_;
  }

  void start_transfer(EngineState& engine, std::size_t job) {
    const ServiceSplit& split = *setup_.split;
    const double bytes = split.bytes_per_token * static_cast<double>(jobs_[job].computed) + split.bytes_per_sequence;
    engine.link_free_s = std::max(engine.link_free_s, now_) + bytes / split.link_bytes_per_s;
    jobs_[job].transfer_s = engine.link_free_s - now_;
    events_.push({engine.link_free_s, order_++, Event::Kind::transfer_ends, job});
  }

  void end_transfer(std::size_t job) {
    workers_[home_[job]].instance.release(job);
    home_[job] = least_loaded(entry_, workers_.size());
    workers_[home_[job]].instance.enqueue(job);
  }

  /// What is true until the next point in time.
  void refresh() {
    std::size_t waiting = 0;
    std::int64_t used = 0;
    for (const Worker& worker : workers_) {
      waiting += worker.instance.waiting();
      used += worker.instance.used_blocks();
    }
    tally_.waiting = static_cast<double>(waiting);
    tally_.waiting_most = std::max(tally_.waiting_most, static_cast<std::int64_t>(waiting));
    tally_.used_blocks = static_cast<double>(used);
  }

  const ServiceSetup& setup_;
  const ServiceStepSeconds& seconds_;
  std::vector<ServiceJob> jobs_;
  std::vector<std::size_t> home_;  ///< worker of a job
  std::vector<Worker> workers_;    ///< of an engine beside each other
  std::vector<EngineState> engines_;
  std::size_t entry_ = 1;  ///< workers that requests come to; the others generate
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  ServiceTally tally_;
  double now_ = 0;
  std::size_t arrived_ = 0;
  std::size_t free_to_come_ = 0;  ///< jobs whose arrival is known
  std::size_t done_ = 0;
  std::int64_t steps_ = 0;
  std::int64_t checked_ = -1;
  std::uint64_t order_ = 0;
};

}  // namespace

ServiceOutcome simulate_service(std::span<const ServiceRequest> requests, const ServiceSetup& setup,
                                const ServiceStepSeconds& seconds) {
  check_service(requests, setup);
  return Simulation(requests, setup, seconds).run();
}

}  // namespace moecast
