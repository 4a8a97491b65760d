#include "models/routing/routing_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "models/routing/capacity.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

constexpr std::uint64_t kTurnsSeed = 0x7475726e73ULL;

CapacityOverflow overflow_of(const CapacitySpec& capacity) {
  switch (capacity.overflow) {
    case Overflow::next_best: return CapacityOverflow::next_best;
    case Overflow::queue: return CapacityOverflow::queue;
    case Overflow::reroute_random:
      throw InputError("capacity", "reroutes at random, which is not executed yet", "drop, next-best or queue");
    case Overflow::drop: break;
  }
  return capacity.pad ? CapacityOverflow::pad : CapacityOverflow::drop;
}

void add(std::vector<double>& sums, const std::vector<double>& values, double weight) {
  sums.resize(values.size(), 0);
  for (std::size_t i = 0; i < values.size(); ++i) sums[i] += weight * values[i];
}

void add(LoadMetrics& sums, const LoadMetrics& one, double weight) {
  sums.max_over_mean += weight * one.max_over_mean;
  sums.cv_squared += weight * one.cv_squared;
  sums.gini += weight * one.gini;
  sums.entropy_nats += weight * one.entropy_nats;
  sums.normalised_entropy += weight * one.normalised_entropy;
}

/// (token, slot) pairs that are drawn beside an expectation, and those that one sample may have.
constexpr double kRowsBeside = 1 << 22;
constexpr double kMostRowsBeside = 1 << 25;
constexpr int kSamplesBeside = 100;

/// Rows of an expert's copies in turn, the first one drawn.
void deal(std::int64_t rows, std::span<const std::int32_t> copies, Random& random, std::vector<double>& rows_per_rank) {
  const auto count = static_cast<std::int64_t>(copies.size());
  const std::int64_t start = count > 1 ? random.below(static_cast<std::uint32_t>(count)) : 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int32_t rank = copies[static_cast<std::size_t>((start + i) % count)];
    rows_per_rank[static_cast<std::size_t>(rank)] += static_cast<double>(rows / count + (i < rows % count ? 1 : 0));
  }
}

std::optional<SampledMetrics> metrics_beside(const RoutingQuestion& question, int top_k) {
  const double rows_of_one = static_cast<double>(question.tokens) * top_k;
  if (rows_of_one > kMostRowsBeside) return std::nullopt;
  SampledMetrics metrics;
  metrics.samples = static_cast<int>(std::clamp(kRowsBeside / rows_of_one, 1.0, static_cast<double>(kSamplesBeside)));
  for (LoadMetrics* sums : {&metrics.experts, &metrics.ranks}) *sums = {0, 0, 0, 0, 0};
  Router router(question.policy, question.popularity);
  Random random(question.seed);
  Assignment assignment;
  for (int sample = 0; sample < metrics.samples; ++sample) {
    router.draw(question.tokens, random, assignment);
    const std::vector<std::int64_t> rows = assignment.rows_per_expert();
    std::vector<double> rows_per_rank(static_cast<std::size_t>(question.placement.ranks()), 0.0);
    for (int e = 0; e < router.experts(); ++e)
      deal(rows[static_cast<std::size_t>(e)], question.placement.ranks_of(e), random, rows_per_rank);
    const std::vector<double> rows_per_expert(rows.begin(), rows.end());
    add(metrics.experts, load_metrics(rows_per_expert), 1.0 / metrics.samples);
    add(metrics.ranks, load_metrics(rows_per_rank), 1.0 / metrics.samples);
  }
  return metrics;
}

RoutingAnswer expected_answer(const RoutingQuestion& question) {
  if (!has_expected_routing(question)) {
    throw InputError("routing", "has no closed form with this policy or capacity", "samples");
  }
  const RoutingPolicy& policy = question.policy;
  const int ranks = question.placement.ranks();
  const auto experts = static_cast<double>(question.popularity.size());
  const bool chooses = policy.kind == RoutingPolicyKind::token_choice;
  const int top_k = policy.kind == RoutingPolicyKind::dense ? static_cast<int>(experts) : policy.top_k;
  // A hash is even; and where all experts are taken, weights do not matter.
  const std::vector<double> popularity =
      chooses ? question.popularity : std::vector<double>(question.popularity.size(), 1 / experts);
  TrafficOptions options;
  options.deduplication = question.deduplication;
  options.ranks_per_node = question.ranks_per_node;
  options.dispatch_row_bytes = 1;  // copies
  const std::vector<double> own(static_cast<std::size_t>(ranks), static_cast<double>(question.tokens) / ranks);
  const Traffic traffic = expected_traffic(popularity, top_k, own, question.placement, options);
  RoutingAnswer answer;
  answer.asked = answer.rows_per_expert = traffic.rows_per_expert;
  answer.rows_per_rank = traffic.rows_per_rank;
  answer.tokens_per_rank = traffic.tokens_per_rank;
  answer.copies = traffic.all();
  answer.experts = load_metrics(answer.rows_per_expert);
  answer.ranks = load_metrics(answer.rows_per_rank);
  answer.sampled = metrics_beside(question, top_k);
  answer.experts_per_token = top_k;
  const std::int64_t decisions = (question.tokens + policy.tokens_per_decision - 1) / policy.tokens_per_decision;
  answer.distinct_experts = expected_distinct_experts(popularity, decisions, top_k, Inclusion::exact);
  answer.kept = std::accumulate(answer.asked.begin(), answer.asked.end(), 0.0);
  if (question.flops_per_row) answer.wasted_flops = 0;
  return answer;
}

class Sampler {
 public:
  explicit Sampler(const RoutingQuestion& question)
      : question_(question),
        router_(question.policy, question.popularity),
        counter_(question.placement, {question.deduplication, question.ranks_per_node, 1.0, false}),
        weight_(1.0 / question.samples) {
    answer_.expected = false;
    answer_.copies = ByteMatrix(question.placement.ranks());
    answer_.slots = capacity_slots(question.capacity, question.tokens, question.policy.top_k, router_.experts());
    for (LoadMetrics* metrics : {&answer_.experts, &answer_.ranks}) *metrics = {0, 0, 0, 0, 0};
  }

  RoutingAnswer run() {
    Random random(question_.seed);
    Random turns(question_.seed + kTurnsSeed);  // of its own: the same routings whatever has copies
    for (int sample = 0; sample < question_.samples; ++sample) {
      counter_.start_turns(turns);
      add_draw(random);
    }
    if (question_.flops_per_row) answer_.wasted_flops = answer_.padded * *question_.flops_per_row;
    return std::move(answer_);
  }

 private:
  void add_draw(Random& random) {
    router_.draw(question_.tokens, random, assignment_);
    const std::vector<std::int64_t> asked = assignment_.rows_per_expert();
    add(answer_.asked, {asked.begin(), asked.end()}, weight_);
    answer_.experts_per_token +=
        weight_ * static_cast<double>(assignment_.expert.size()) / static_cast<double>(question_.tokens);
    if (answer_.slots) {
      const CapacityOutcome outcome =
          limit_assignment(assignment_, *answer_.slots, overflow_of(question_.capacity), question_.popularity);
      answer_.dropped += weight_ * static_cast<double>(outcome.dropped);
      answer_.moved += weight_ * static_cast<double>(outcome.moved);
      answer_.queued += weight_ * static_cast<double>(outcome.queued);
    }
    counter_.count(assignment_, traffic_);
    answer_.padded += weight_ * padded_rows();
    add(answer_.rows_per_expert, traffic_.rows_per_expert, weight_);
    add(answer_.rows_per_rank, traffic_.rows_per_rank, weight_);
    add(answer_.tokens_per_rank, traffic_.tokens_per_rank, weight_);
    const ByteMatrix copies = traffic_.all();
    for (int from = 0; from < copies.ranks(); ++from) {
      for (int to = 0; to < copies.ranks(); ++to) answer_.copies.at(from, to) += weight_ * copies.at(from, to);
    }
    answer_.kept += weight_ * static_cast<double>(assignment_.expert.size());
    answer_.distinct_experts +=
        weight_ * static_cast<double>(std::ranges::count_if(traffic_.rows_per_expert, [](double r) { return r > 0; }));
    if (assignment_.expert.empty()) return;
    add(answer_.experts, load_metrics(traffic_.rows_per_expert), weight_);
    add(answer_.ranks, load_metrics(traffic_.rows_per_rank), weight_);
  }

  /// Rows that are computed beyond those that were routed.
  [[nodiscard]] double padded_rows() const {
    const auto block = static_cast<double>(question_.row_block);
    const bool all_slots = answer_.slots && question_.capacity.pad;
    if (block == 1 && !all_slots) return 0;
    double padded = 0;
    for (int expert = 0; expert < router_.experts(); ++expert) {
      const double rows = traffic_.rows_per_expert[static_cast<std::size_t>(expert)];
      const auto copies = static_cast<double>(question_.placement.ranks_of(expert).size());
      const double computed = all_slots ? static_cast<double>(*answer_.slots) : rows;
      padded += (block > 1 ? std::ceil(computed / copies / block) * block * copies : computed) - rows;
    }
    return padded;
  }

  const RoutingQuestion& question_;
  Router router_;
  TrafficCounter counter_;
  double weight_;
  Assignment assignment_;
  Traffic traffic_;
  RoutingAnswer answer_;
};

}  // namespace

double activation_row_bytes(std::int64_t hidden, DType dtype) {
  const auto elements = static_cast<double>(hidden);
  const double plain = elements * bytes_per_element(dtype);
  const auto scales = [&](double block, double bytes) { return std::ceil(elements / block) * bytes; };
  switch (dtype) {
    case DType::fp32:
    case DType::bf16:
    case DType::fp16: return plain;
    case DType::fp8:
    case DType::int8: return plain + 4;
    case DType::fp8_block: return plain + scales(128, 4);
    case DType::mxfp8:
    case DType::mxfp4: return plain + scales(32, 1);
    case DType::nvfp4: return plain + scales(16, 1);
    case DType::int4: break;
  }
  throw InputError("dtype", fmt::format("{} is a format of weights", to_string(dtype)), "bf16, fp8_block, nvfp4, ...");
}

bool has_expected_routing(const RoutingQuestion& question) {
  const RoutingPolicy& policy = question.policy;
  if (question.capacity.limited() || question.row_block > 1) return false;
  const bool noisy = policy.noise != RoutingNoise::none && policy.noise_strength > 0;
  if (noisy || !policy.top_k_distribution.empty()) return false;
  switch (policy.kind) {
    case RoutingPolicyKind::hash: return policy.top_k == 1;
    case RoutingPolicyKind::dense: return true;
    case RoutingPolicyKind::token_choice: return policy.groups_kept == policy.groups;
    default: return false;
  }
}

RoutingAnswer answer_routing(const RoutingQuestion& question) {
  if (question.placement.experts() != std::ssize(question.popularity)) {
    throw InputError("routing", fmt::format("{} experts are placed, {} have a popularity", question.placement.experts(),
                                            question.popularity.size()));
  }
  if (question.tokens < 1) throw InputError("routing", "has no token");
  if (question.row_block < 1) throw InputError("routing", "a block has no row");
  return question.samples > 0 ? Sampler(question).run() : expected_answer(question);
}

}  // namespace moecast
