#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "models/plan/engine.h"

namespace moecast {

/// What a client asks of a service.
struct ServiceRequest {
  double arrival_s = 0;     ///< since the beginning, at least 0
  std::int64_t prompt = 1;  ///< tokens, at least 1
  std::int64_t output = 1;  ///< tokens to generate, at least 1
  int priority = 0;         ///< higher ones go first
};

/// What an engine does in one step, on all data-parallel ranks of an instance together.
struct ServiceStep {
  double decodes = 0;         ///< sequences that generate
  double context = 0;         ///< mean KV entries of these, the new ones included; 0 without decodes
  double prefill_tokens = 0;  ///< new tokens of prompts
  double prompts = 0;         ///< sequences that these belong to
  double prefix = 0;          ///< KV entries that the prompts already hold, of all together
  double longest_chunk = 0;   ///< most new tokens of one prompt
  bool after_idle = false;
  int stage = 0;  ///< of the pipeline, that is asked for
  [[nodiscard]] bool empty() const { return decodes == 0 && prompts == 0; }
};

/// Seconds of a step on one stage: positive and finite.
using ServiceStepSeconds = std::function<double(const ServiceStep&)>;

/// Tokens that are guessed ahead of each step: sequences go on by those that are right, and one more.
struct ServiceGuesses {
  int tokens = 0;         ///< of a sequence and step
  double acceptance = 0;  ///< how often a guess is right where those before it were
  std::uint64_t seed = 1;
};

/// What an instance may hold and do at once.
struct ServiceLimits {
  std::int64_t batched_tokens = kUsualBatchedTokens;  ///< of a step: decode tokens and chunks of prompts
  std::int64_t chunk_tokens = kUsualBatchedTokens;    ///< of one prompt in a step
  std::int64_t sequences = 256;                       ///< in the batch
  std::optional<std::int64_t> kv_blocks{};            ///< of the cache; nullopt = more than is ever needed
  bool reserves_outputs = false;  ///< a request takes blocks for all that it may generate when it is admitted
  std::int64_t block_tokens = 16;
  std::int64_t state_blocks = 0;  ///< of a sequence, whatever its length: constant states
  ServiceGuesses guesses{};
  /// Prompts are held back until so many wait, one for each replica of attention, or for `prompts_wait_steps` steps.
  std::int64_t prompts_together = 1;
  std::int64_t prompts_wait_steps = 0;
  std::int64_t shared_prefix = 0;  ///< tokens that all prompts begin with: whole blocks are computed and held once
  /// Blocks that a sequence of so many KV entries takes, shared ones included.
  [[nodiscard]] std::int64_t blocks_of(std::int64_t entries) const;
};

/// A request on its way through a service.
struct ServiceJob {
  std::int64_t prompt = 0;
  std::int64_t output = 0;
  int priority = 0;
  std::int64_t generated = 0;
  std::int64_t to_prefill = 0;   ///< tokens before the next one can be generated: the prompt, and what was generated
                                 ///< before a preemption
  std::int64_t computed = 0;     ///< KV entries
  std::int64_t blocks = 0;       ///< own ones
  std::int64_t shared = 0;       ///< blocks of the shared prefix that it uses
  std::int64_t chunk = 0;        ///< tokens in the step that runs
  std::int64_t preemptions = 0;  ///< times that its cache was thrown away
  double arrival_s = 0;
  double entered_s = -1;  ///< reached the engine's queue; -1 = not yet
  double started_s = -1;  ///< first step that it is part of; -1 = not yet
  double first_token_s = -1;
  double finished_s = -1;
  double transfer_s = 0;  ///< moving its cache, waiting for the link included
};

/// What an instance counts.
struct ServiceCounts {
  std::int64_t steps = 0;
  std::int64_t preemptions = 0;
  std::int64_t prefilled_tokens = 0;   ///< computed as part of prompts
  std::int64_t recomputed_tokens = 0;  ///< of these: after a preemption
  std::int64_t cached_tokens = 0;      ///< not computed, for the shared prefix was there
  std::int64_t generated_tokens = 0;
  std::size_t most_running = 0;
  std::int64_t most_blocks = 0;
};

/// One engine that runs steps one after another: first in, first out among those of equal priority, higher ones before
/// them; decodes and chunks of prompts share a step; a prompt is admitted when the cache has room for all of it; when
/// the cache is full, the latest sequence of the lowest priority is thrown out and computed again later. What runs is
/// not thrown out for what waits. Knows no clock.
class ServiceInstance {
 public:
  enum class Role { both, prefill, decode };

  /// @param jobs  of all instances; must outlive this one and not be moved.
  ServiceInstance(const ServiceLimits& limits, Role role, std::vector<ServiceJob>& jobs);

  void enqueue(std::size_t job);
  /// Chooses the next step: admits and preempts. Empty when there is nothing to do.
  ServiceStep plan();
  /// Carries out the planned step: its tokens exist at `now`.
  /// @return jobs that left: finished, or, with Role::prefill, with a first token and their cache still held.
  std::span<const std::size_t> complete(double now);
  /// Marks the beginning of the planned step for those that it is the first of.
  void mark_started(double now);
  /// Lets go of the cache of a job that left with Role::prefill.
  void release(std::size_t job);

  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }
  [[nodiscard]] std::size_t running() const { return running_.size(); }
  [[nodiscard]] std::int64_t used_blocks() const { return used_blocks_; }
  [[nodiscard]] const ServiceCounts& counts() const { return counts_; }

 private:
  [[nodiscard]] bool has_room(std::int64_t blocks) const;
  void take(ServiceJob& job, std::int64_t blocks);
  void plan_running(ServiceStep& step, std::int64_t& budget, bool& preempted);
  void plan_admission(ServiceStep& step, std::int64_t& budget);
  bool holds_back();
  void schedule(ServiceJob& job, ServiceStep& step, std::int64_t& budget) const;
  void preempt_latest();
  void share_prefix(ServiceJob& job);
  [[nodiscard]] std::int64_t next_tokens(const ServiceJob& job) const;
  std::int64_t draw_right(std::int64_t guesses);

  ServiceLimits limits_;
  Role role_;
  std::vector<ServiceJob>& jobs_;
  std::deque<std::size_t> waiting_;   ///< by priority, then in the order of arrival
  std::vector<std::size_t> running_;  ///< while a step is planned: by priority, then in the order of admission
  std::vector<std::size_t> left_;
  std::int64_t used_blocks_ = 0;
  std::int64_t shared_blocks_ = 0;  ///< of the prefix, once it is there
  std::int64_t held_steps_ = 0;     ///< since when prompts are held back
  ServiceCounts counts_;
  std::mt19937_64 random_;
};

}  // namespace moecast
