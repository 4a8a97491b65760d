#include "sim/step/service_instance.h"

#include <algorithm>

namespace moecast {

std::int64_t ServiceLimits::blocks_of(std::int64_t entries) const {
  return state_blocks + (entries + block_tokens - 1) / block_tokens;
}

ServiceInstance::ServiceInstance(const ServiceLimits& limits, Role role, std::vector<ServiceJob>& jobs)
    : limits_(limits), role_(role), jobs_(jobs), random_(limits.guesses.seed) {}

/// Computed for a sequence that generates: none beyond the last one that is wanted.
std::int64_t ServiceInstance::next_tokens(const ServiceJob& job) const {
  return std::max<std::int64_t>(1, std::min<std::int64_t>(1 + limits_.guesses.tokens, job.output - job.generated));
}

/// Of so many guesses, those before the first wrong one.
std::int64_t ServiceInstance::draw_right(std::int64_t guesses) {
  std::int64_t right = 0;
  std::bernoulli_distribution is_right(limits_.guesses.acceptance);
  while (right < guesses && is_right(random_)) ++right;
  return right;
}

bool ServiceInstance::has_room(std::int64_t blocks) const {
  return !limits_.kv_blocks || used_blocks_ + blocks <= *limits_.kv_blocks;
}

void ServiceInstance::take(ServiceJob& job, std::int64_t blocks) {
  job.blocks += blocks;
  used_blocks_ += blocks;
  counts_.most_blocks = std::max(counts_.most_blocks, used_blocks_);
}

void ServiceInstance::enqueue(std::size_t job) {
  const auto later = [this](int priority, std::size_t other) { return priority > jobs_[other].priority; };
  waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), jobs_[job].priority, later), job);
}

void ServiceInstance::preempt_latest() {
  const std::size_t latest = running_.back();
  ServiceJob& job = jobs_[latest];
  running_.pop_back();
  // Before those of its priority.
  const auto earlier = [this](std::size_t other, int priority) { return jobs_[other].priority > priority; };
  waiting_.insert(std::lower_bound(waiting_.begin(), waiting_.end(), job.priority, earlier), latest);
  used_blocks_ -= job.blocks;
  job.blocks = job.shared = job.computed = job.chunk = 0;
  job.to_prefill = job.prompt + job.generated;
  ++job.preemptions;
  ++counts_.preemptions;
}

/// Gives a job its tokens of the step, as far as the budget goes.
void ServiceInstance::schedule(ServiceJob& job, ServiceStep& step, std::int64_t& budget) const {
  if (job.computed >= job.to_prefill) {
    job.chunk = std::min(next_tokens(job), budget);
    if (job.chunk == 0) return;
    step.decodes += 1;
    step.context += static_cast<double>(job.computed + job.chunk);  // a sum until plan() ends
  } else {
    job.chunk = std::min({job.to_prefill - job.computed, budget, limits_.chunk_tokens});
    if (job.chunk == 0) return;
    const auto chunk = static_cast<double>(job.chunk);
    step.prompts += 1;
    step.prefill_tokens += chunk;
    step.prefix += static_cast<double>(job.computed);
    step.longest_chunk = std::max(step.longest_chunk, chunk);
  }
  budget -= job.chunk;
}

void ServiceInstance::plan_running(ServiceStep& step, std::int64_t& budget, bool& preempted) {
  for (std::size_t i = 0; i < running_.size(); ++i) {
    ServiceJob& job = jobs_[running_[i]];
    if (job.computed >= job.to_prefill) {
      const std::int64_t needed = limits_.blocks_of(job.computed + next_tokens(job)) - job.shared - job.blocks;
      while (needed > 0 && i < running_.size() && !has_room(needed)) {
        preempt_latest();
        preempted = true;
      }
      if (i == running_.size()) return;  // it was itself the latest
      if (needed > 0) take(job, needed);
    }
    schedule(job, step, budget);
  }
}

/// Whether prompts that wait are left for a later step. What others computed already only goes on.
bool ServiceInstance::holds_back() {
  const bool waits = limits_.prompts_together > 1 && !running_.empty() && !waiting_.empty() &&
                     static_cast<std::int64_t>(waiting_.size()) < limits_.prompts_together &&
                     jobs_[waiting_.front()].computed == 0 && held_steps_ < limits_.prompts_wait_steps;
  held_steps_ = waits ? held_steps_ + 1 : 0;
  return waits;
}

void ServiceInstance::plan_admission(ServiceStep& step, std::int64_t& budget) {
  while (!waiting_.empty() && budget > 0 && static_cast<std::int64_t>(running_.size()) < limits_.sequences) {
    const std::size_t next = waiting_.front();
    ServiceJob& job = jobs_[next];
    // At least one token is computed, for the next one comes out of it.
    const std::int64_t shared =
        job.computed > 0 ? 0 : std::min(shared_blocks_, (job.to_prefill - 1) / limits_.block_tokens);
    const bool decodes = job.computed >= job.to_prefill;
    std::int64_t entries = decodes ? job.computed + next_tokens(job) : job.to_prefill;
    if (limits_.reserves_outputs && role_ != Role::prefill) entries = std::max(entries, job.prompt + job.output);
    const std::int64_t needed = limits_.blocks_of(entries) - shared;
    if (!has_room(needed)) return;
    waiting_.pop_front();
    running_.push_back(next);
    take(job, needed);
    job.shared = shared;
    if (shared > 0) {
      job.computed = shared * limits_.block_tokens;
      counts_.cached_tokens += job.computed;
    }
    schedule(job, step, budget);
  }
}

ServiceStep ServiceInstance::plan() {
  ServiceStep step;
  std::int64_t budget = limits_.batched_tokens;
  bool preempted = false;
  const auto first = [this](std::size_t a, std::size_t b) { return jobs_[a].priority > jobs_[b].priority; };
  if (!std::ranges::is_sorted(running_, first)) std::ranges::stable_sort(running_, first);
  plan_running(step, budget, preempted);
  // What was just thrown out would come back at once.
  if (!preempted && !holds_back()) plan_admission(step, budget);
  if (step.decodes > 0) step.context /= step.decodes;
  counts_.most_running = std::max(counts_.most_running, running_.size());
  return step;
}

void ServiceInstance::mark_started(double now) {
  // Those that were admitted just now stand at the end.
  for (auto i = running_.rbegin(); i != running_.rend() && jobs_[*i].started_s < 0; ++i) jobs_[*i].started_s = now;
}

/// The first prompt that was computed leaves its beginning in the cache for all that follow.
void ServiceInstance::share_prefix(ServiceJob& job) {
  if (shared_blocks_ > 0) return;
  shared_blocks_ = std::min(limits_.shared_prefix, job.prompt) / limits_.block_tokens;
  job.blocks -= shared_blocks_;
  job.shared = shared_blocks_;
}

std::span<const std::size_t> ServiceInstance::complete(double now) {
  ++counts_.steps;
  left_.clear();
  std::size_t kept = 0;
  for (const std::size_t index : running_) {
    ServiceJob& job = jobs_[index];
    const std::int64_t chunk = job.chunk;
    job.chunk = 0;
    const bool prefills = job.computed < job.to_prefill;
    const std::int64_t right = prefills || chunk < 2 ? 0 : draw_right(chunk - 1);
    job.computed += prefills ? chunk : std::min<std::int64_t>(chunk, 1 + right);
    if (prefills) {
      counts_.prefilled_tokens += chunk;
      if (job.preemptions > 0) counts_.recomputed_tokens += chunk;
    }
    if (chunk == 0 || job.computed < job.to_prefill) {
      running_[kept++] = index;
      continue;
    }
    if (prefills) share_prefix(job);
    job.generated += 1 + right;
    counts_.generated_tokens += 1 + right;
    if (job.first_token_s < 0) job.first_token_s = now;
    if (job.generated == job.output) {
      job.finished_s = now;
      used_blocks_ -= job.blocks;
      job.blocks = 0;
      left_.push_back(index);
    } else if (role_ == Role::prefill) {
      left_.push_back(index);
    } else {
      running_[kept++] = index;
    }
  }
  running_.resize(kept);
  return left_;
}

void ServiceInstance::release(std::size_t job) {
  used_blocks_ -= jobs_[job].blocks;
  jobs_[job].blocks = jobs_[job].shared = 0;
}

}  // namespace moecast
