#include "sim/step/service_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostCountedTokens = 1'000'000'000;
constexpr int kMostInstances = 4096;
constexpr int kMostStages = 1024;

/// @param values  not empty; is sorted.
ServiceQuantiles quantiles_of(std::vector<double>& values) {
  std::ranges::sort(values);
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
  };
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  return {mean, at(0.5), at(0.9), at(0.95), at(0.99)};
}

void add(ServiceCounts& all, const ServiceCounts& one) {
  all.steps += one.steps;
  all.preemptions += one.preemptions;
  all.prefilled_tokens += one.prefilled_tokens;
  all.recomputed_tokens += one.recomputed_tokens;
  all.cached_tokens += one.cached_tokens;
  all.generated_tokens += one.generated_tokens;
  all.most_running = std::max(all.most_running, one.most_running);
  all.most_blocks = std::max(all.most_blocks, one.most_blocks);
}

void fill_latencies(ServiceOutcome& outcome, const ServiceSetup& setup) {
  std::vector<double> ttft, tpot, end_to_end, wait;
  double transfers = 0;
  double met = 0;
  const std::size_t first = std::min(setup.warmup_requests, outcome.jobs.size() - 1);
  outcome.measured = outcome.jobs.size() - first;
  for (std::size_t i = first; i < outcome.jobs.size(); ++i) {
    const ServiceJob& job = outcome.jobs[i];
    ttft.push_back(job.first_token_s - job.arrival_s);
    end_to_end.push_back(job.finished_s - job.arrival_s);
    wait.push_back(job.started_s - job.entered_s);
    transfers += job.transfer_s;
    bool meets = !setup.ttft_goal_s || ttft.back() <= *setup.ttft_goal_s;
    if (job.output > 1) {
      tpot.push_back((job.finished_s - job.first_token_s) / static_cast<double>(job.output - 1));
      meets = meets && (!setup.tpot_goal_s || tpot.back() <= *setup.tpot_goal_s);
    }
    met += meets ? 1 : 0;
  }
  const auto measured = static_cast<double>(outcome.measured);
  outcome.ttft = quantiles_of(ttft);
  outcome.end_to_end = quantiles_of(end_to_end);
  outcome.wait = quantiles_of(wait);
  if (!tpot.empty()) outcome.tpot = quantiles_of(tpot);
  if (setup.split) outcome.transfer_mean_s = transfers / measured;
  if (setup.ttft_goal_s || setup.tpot_goal_s) outcome.met_ratio = met / measured;
}

void fill_classes(ServiceOutcome& outcome) {
  std::map<int, std::vector<const ServiceJob*>, std::greater<>> by_priority;
  for (std::size_t i = outcome.jobs.size() - outcome.measured; i < outcome.jobs.size(); ++i) {
    by_priority[outcome.jobs[i].priority].push_back(&outcome.jobs[i]);
  }
  if (by_priority.size() < 2) return;
  for (const auto& [priority, jobs] : by_priority) {
    std::vector<double> ttft, tpot, end_to_end;
    for (const ServiceJob* job : jobs) {
      ttft.push_back(job->first_token_s - job->arrival_s);
      end_to_end.push_back(job->finished_s - job->arrival_s);
      if (job->output > 1) {
        tpot.push_back((job->finished_s - job->first_token_s) / static_cast<double>(job->output - 1));
      }
    }
    outcome.classes.push_back({priority, jobs.size(), quantiles_of(ttft),
                               tpot.empty() ? std::nullopt : std::optional(quantiles_of(tpot)),
                               quantiles_of(end_to_end)});
  }
}

void fill_rates(ServiceOutcome& outcome, const ServiceTally& tally) {
  const ServiceTotals end = tally.snapshot();
  const ServiceTotals& begin = tally.first();
  outcome.duration_s = end.time_s - begin.time_s;
  outcome.whole_run_in_flight_mean = (end.in_flight - begin.in_flight) / outcome.duration_s;
  ServiceTotals from = begin;
  ServiceTotals to = end;
  if (tally.opened() && tally.closed() && tally.closed()->time_s - tally.opened()->time_s > outcome.duration_s / 2) {
    from = *tally.opened();
    to = *tally.closed();
    outcome.steady = true;
  }
  const double window = to.time_s - from.time_s;
  outcome.window_s = window;
  outcome.requests_per_s = (to.finished - from.finished) / window;
  outcome.arrivals_per_s = (to.arrived - from.arrived) / window;
  outcome.output_tokens_per_s = (to.generated - from.generated) / window;
  outcome.utilisation_ratio = (to.busy - from.busy) / window / tally.instances;
  outcome.waiting_mean = (to.waiting - from.waiting) / window;
  outcome.in_flight_mean = (to.in_flight - from.in_flight) / window;
  if (tally.blocks > 0) outcome.kv_mean_ratio = (to.used_blocks - from.used_blocks) / window / tally.blocks;
}

}  // namespace

void ServiceTally::pass(double now) {
  const double seconds = now - totals_.time_s;
  totals_.time_s = now;
  totals_.in_flight += in_flight * seconds;
  totals_.waiting += waiting * seconds;
  totals_.used_blocks += used_blocks * seconds;
  totals_.busy += busy * seconds;
}

ServiceTotals ServiceTally::snapshot() const {
  ServiceTotals totals = totals_;
  totals.finished = finished;
  totals.generated = generated;
  totals.arrived = finished + in_flight;
  return totals;
}

ServiceOutcome service_outcome(std::vector<ServiceJob> jobs, const ServiceSetup& setup, const ServiceTally& tally,
                               std::span<const ServiceCounts> counts) {
  ServiceOutcome outcome;
  outcome.jobs = std::move(jobs);
  for (const ServiceCounts& one : counts) add(outcome.counts, one);
  fill_latencies(outcome, setup);
  fill_classes(outcome);
  fill_rates(outcome, tally);
  if (setup.limits.kv_blocks) {
    outcome.kv_most_ratio =
        static_cast<double>(outcome.counts.most_blocks) / static_cast<double>(*micro_batch_limits(setup).kv_blocks);
  }
  outcome.waiting_most = tally.waiting_most;
  for (std::size_t i = 0; i < tally.quarters.size(); ++i) {
    const ServiceMean& quarter = tally.quarters[i];
    outcome.waiting_quarters[i] = quarter.count > 0 ? quarter.sum / static_cast<double>(quarter.count) : 0;
  }
  return outcome;
}

ServiceLimits micro_batch_limits(const ServiceSetup& setup) {
  ServiceLimits limits = setup.limits;
  const std::int64_t parts = setup.pipeline.stages;
  limits.sequences = (limits.sequences + parts - 1) / parts;
  if (limits.kv_blocks) *limits.kv_blocks /= parts;
  return limits;
}

void check_service(std::span<const ServiceRequest> requests, const ServiceSetup& setup) {
  if (setup.pipeline.stages < 1 || setup.pipeline.stages > kMostStages) {
    throw InputError("stages", fmt::format("must be 1 to {}", kMostStages));
  }
  const ServiceLimits limits = micro_batch_limits(setup);
  if (requests.empty()) throw InputError("requests", "there is none", "ask for at least one");
  if (limits.batched_tokens < 1 || limits.chunk_tokens < 1 || limits.sequences < 1 || limits.block_tokens < 1 ||
      limits.state_blocks < 0 || limits.shared_prefix < 0) {
    throw InputError("limits", "tokens, sequences and blocks must be at least 1");
  }
  if (!(setup.front_s >= 0) || !std::isfinite(setup.front_s)) throw InputError("front", "takes no such time");
  if (setup.clients && *setup.clients < 1) throw InputError("clients", "must be at least 1");
  const auto bad = [](int instances) { return instances < 1 || instances > kMostInstances; };
  if (bad(setup.instances)) throw InputError("instances", fmt::format("must be 1 to {}", kMostInstances));
  if (setup.split) {
    if (bad(setup.split->prefill_instances) || bad(setup.split->decode_instances)) {
      throw InputError("instances", fmt::format("must be 1 to {}", kMostInstances));
    }
    if (!(setup.split->link_bytes_per_s > 0)) throw InputError("link", "must move a positive number of bytes a second");
    if (limits.shared_prefix > 0) throw InputError("shared prefix", "is not simulated where prefill is apart");
  }
  double before = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const ServiceRequest& request = requests[i];
    const std::string where = fmt::format("request {}", i + 1);
    if (request.prompt < 1 || request.prompt > kMostCountedTokens || request.output < 1 ||
        request.output > kMostCountedTokens) {
      throw InputError(where, fmt::format("prompt and output must be 1 to {} tokens", kMostCountedTokens));
    }
    if (!std::isfinite(request.arrival_s) || request.arrival_s < before) {
      throw InputError(where, "arrives before the one before it, or never");
    }
    before = request.arrival_s;
    if (limits.shared_prefix > request.prompt) throw InputError(where, "is shorter than the shared prefix");
    // A prompt that is all prefix computes its last block again.
    const std::int64_t needed =
        limits.blocks_of(request.prompt + request.output) + (limits.shared_prefix >= limits.block_tokens ? 1 : 0);
    if (limits.kv_blocks && needed > *limits.kv_blocks) {
      throw InputError(where, fmt::format("needs {} blocks of cache, {} are there", needed, *limits.kv_blocks),
                       "more GPUs or shorter requests");
    }
  }
}

}  // namespace moecast
