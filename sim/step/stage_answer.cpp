#include "sim/step/stage_answer.h"

#include <algorithm>
#include <utility>

#include "models/plan/graph.h"
#include "models/plan/stages.h"
#include "sim/step/batch_overlap.h"
#include "sim/step/context_parallel.h"
#include "sim/step/pipeline_schedule.h"
#include "sim/step/stream_overlap.h"

namespace moecast {
namespace {

/// Of a step: what is left when sums are taken from each other.
constexpr double kNothing = 1e-12;
/// Share of a step from which on an operator decides how well the step is known.
constexpr double kNoticed = 0.01;

bool is_communication(StepGroup group) { return group == StepGroup::communication; }
bool is_router(const StepOperator& op) { return op.name == "router"; }

/// Operators of equal name, kind and kernel are one.
void merge(std::vector<OperatorCost>& all, const std::vector<OperatorCost>& more) {
  for (const OperatorCost& cost : more) {
    const auto same = std::ranges::find_if(all, [&](const OperatorCost& known) {
      return known.name == cost.name && known.kind == cost.kind && known.stage == cost.stage;
    });
    if (same == all.end()) {
      all.push_back(cost);
    } else {
      same->count += cost.count;
      same->latency += cost.latency;
      if (same->flops && cost.flops) *same->flops += *cost.flops;
      if (same->bytes && cost.bytes) *same->bytes += *cost.bytes;
    }
  }
}

std::int64_t on_rank(const StepModel& model, std::int64_t sequences) {
  const std::int64_t dp = model.deployment().dp;
  return (sequences + dp - 1) / dp;
}

/// Tokens of a micro-batch on all replicas: where they do not divide its sequences, some have fewer.
double tokens_of_all(const StepModel& model, const Workload& w, const MicroBatch& batch) {
  const std::int64_t dp = model.deployment().dp;
  const std::int64_t decodes = w.phase == Phase::prefill ? 0 : w.batch;
  const std::int64_t prompts = w.phase == Phase::decode ? 0 : w.phase == Phase::mixed ? w.prefill_batch : w.batch;
  return static_cast<double>(std::min(decodes, batch.decodes * dp)) * (1.0 + model.deployment().draft_tokens) +
         static_cast<double>(std::min(prompts, batch.prompts * dp) * w.prompt);
}

/// @param fetches  experts come from the host, which has to see the router's choice before it can go on.
StepShape shape_of(const StepModel& model, const Workload& w, const MicroBatch& batch, bool fetches, StepTerms& terms) {
  const double dp = model.deployment().dp;
  StepShape shape;
  shape.decodes = static_cast<double>(batch.decodes);
  shape.checked = 1.0 + model.deployment().draft_tokens;
  if (batch.decodes > 0) shape.decode_kv = static_cast<double>(w.context) + shape.checked;
  shape.prompts = static_cast<double>(batch.prompts);
  shape.source = static_cast<double>(source_tokens(w));
  shape.context = shape.prompts * static_cast<double>(w.prompt);
  shape.prefix = shape.prompts * static_cast<double>(prefix_tokens(w));
  const double all_ranks = new_tokens(shape);
  const int cp = model.deployment().cp;
  shape = context_share(shape, cp);
  terms.tokens = new_tokens(shape);
  terms.launch = fetches ? StepLaunch::eager : model.launch_of(terms.tokens, shape.context > 0);
  shape.rows = fetches ? terms.tokens : model.padded(terms.tokens);
  shape.expert_rows = (cp == 1 ? shape.rows : std::max(shape.rows, all_ranks)) * dp;
  // Replayed graphs are padded to the fullest rank; eager kernels take the rows that there are.
  if (terms.launch == StepLaunch::eager && cp == 1) {
    shape.expert_rows = std::max(shape.rows, tokens_of_all(model, w, batch));
  }
  return shape;
}

/// Seconds of one operator without the factors that are to be removed.
double remaining(const StepOperator& op, double seconds, double memory_share, const Without& without) {
  if (without.all_to_all && is_communication(op.group)) return 0;
  if (without.routing_overhead && is_router(op)) return 0;
  if (without.memory_bandwidth && !is_communication(op.group)) return seconds * (1 - memory_share);
  return seconds;
}

}  // namespace

MicroBatch whole_batch(const StepModel& model, const Workload& w) {
  MicroBatch all;
  if (w.phase != Phase::prefill) all.decodes = on_rank(model, w.batch);
  if (w.phase != Phase::decode) all.prompts = on_rank(model, w.phase == Phase::mixed ? w.prefill_batch : w.batch);
  return all;
}

StageAnswer answer_stage(const StepModel& model, const StepModel* even, const MicroBatch& batch, bool lone,
                         const StageQuestion& question) {
  StepTerms terms;
  StepShape shape = shape_of(model, question.workload, batch, question.fetches, terms);
  if (lone) {  // a layer by itself, replayed: no engine pads it
    terms.launch = StepLaunch::graph;
    shape.expert_rows = step_tokens(question.workload);
    shape.rows = std::max(1.0, shape.expert_rows / model.deployment().dp);
    shape.decodes = shape.prompts = shape.context = 0;
  }
  StageAnswer answer;
  const BatchOverlap overlap = lone ? BatchOverlap{} : best_overlap(model, shape);
  const StepShape part = part_of(shape, overlap.parts);
  const StepHalfWidths widths = model.half_widths(terms.launch);
  const std::vector<StepOperator>& operators = model.operators().operators;
  const bool beside = part.rows <= model.operators().shared_stream_rows;
  const double shared =
      beside ? exposed_shared(model.operators(), part, times_one_after_the_other(model.operators(), part)) : 1;
  for (std::size_t i = 0; i < operators.size(); ++i) {
    const StepOperator& op = operators[i];
    const double hidden = is_communication(op.group) ? overlap.exposed : op.group == StepGroup::shared ? shared : 1;
    const double times = op.count * overlap.parts * hidden;
    double whole = times * op.seconds(part);
    if (whole == 0) continue;
    // An uneven router touches fewer experts too: removing it never slows.
    if (even != nullptr) whole = std::min(whole, times * even->operators().operators[i].seconds(part));
    const StepWork work = op.work ? op.work(part) : StepWork{};
    const double moving = work.bytes / question.device.bandwidth;
    const double computing = work.flops / question.device.peak_bf16;
    const double share = moving + computing > 0 ? moving / (moving + computing) : 0;
    const double seconds = remaining(op, whole, share, question.without);
    answer.times[static_cast<std::size_t>(op.group)] += seconds;
    answer.assumed += seconds * op.spread;
    answer.flops += op.count * overlap.parts * work.flops;
    if (is_communication(op.group)) {
      answer.communication_s += seconds;
    } else if (is_router(op)) {
      answer.router_s += seconds;
    } else {
      answer.memory_s += seconds == whole ? seconds * share : 0;
    }
    const bool physics = op.kernel == "physics";
    const double calls = op.count * overlap.parts;
    OperatorCost described{std::string(to_string(op.group)),     op.name, op.kernel, calls, Seconds(seconds),
                           physics ? Origin::assumed : op.origin};
    if (op.work) {
      described.flops = Flops(calls * work.flops);
      described.bytes = Bytes(calls * work.bytes);
    }
    if (!physics || op.spread > 0) {
      described.half_width = widths.kernels[static_cast<std::size_t>(op.group)] + op.spread;
    }
    answer.operators.push_back(std::move(described));
  }
  answer.kernels_s = terms.kernels_s = sum(answer.times);
  EngineHost host = model.engine().host;
  if (lone) host = {};
  if (question.follows) host.prepare_s = host.wake_s = host.graph_step_s = 0;
  const StepCost cost = answer.cost = model.cost(terms, host);
  const auto add = [&](const char* name, double seconds, double half_width) {
    if (seconds <= kNothing * cost.seconds) return;
    OperatorCost described{"host", name, model.engine().name, 1, Seconds(seconds), Origin::fitted};
    described.half_width = half_width;
    answer.operators.push_back(std::move(described));
  };
  add(kSmallKernelsPart, cost.other_s, widths.other);
  add("elementwise kernels of prompts", cost.elementwise_s, widths.elementwise);
  add(kPreparation, cost.seconds - terms.kernels_s - cost.other_s - cost.elementwise_s - cost.waits_s, widths.host);
  add(kLaunchWait, cost.waits_s, widths.host);
  answer.half_width = model.half_width(answer.times, cost, terms.launch);
  answer.assumed /= cost.seconds;
  return answer;
}

StageAnswer answer_stages(const StepPipeline& pipeline, const StepPipeline* even, const Deployment& deployment,
                          std::size_t layers, const StageQuestion& question, PipelineReport& report) {
  const StepModel& first = pipeline.front();
  const MicroBatch all = whole_batch(first, question.workload);
  const std::vector<MicroBatch> kinds =
      split_batch(all.decodes, all.prompts, micro_batches_of(deployment, all.decodes + all.prompts));
  std::vector<MicroBatchTimes> schedule;
  std::vector<double> flops(pipeline.stages.size(), 0.0);
  StageAnswer largest;
  double path_s = 0;
  for (const MicroBatch& kind : kinds) {
    MicroBatchTimes times;
    StageAnswer sum;
    double wide = 0;
    double assumed = 0;
    for (std::size_t s = 0; s < pipeline.stages.size(); ++s) {
      const StepModel* flat = even != nullptr ? &even->stages[s] : nullptr;
      const StageAnswer stage = answer_stage(pipeline.stages[s], flat, kind, false, question);
      times.stages.push_back(stage.cost.seconds);
      wide += stage.half_width * stage.cost.seconds;
      assumed += stage.assumed * stage.cost.seconds;
      sum.kernels_s += stage.kernels_s;
      sum.memory_s += stage.memory_s;
      sum.communication_s += stage.communication_s;
      sum.router_s += stage.router_s;
      flops[s] += stage.flops * static_cast<double>(kind.places.size());
      merge(sum.operators, stage.operators);
    }
    StepTerms terms;
    const StepShape shape = shape_of(first, question.workload, kind, question.fetches, terms);
    for (const StageLink& link : pipeline.links) {
      const double sent = question.without.all_to_all ? 0 : link.seconds(shape.rows);
      times.transfers.push_back(sent);
      if (sent > 0) {
        merge(sum.operators, {{"point_to_point", "stages.send", link.kernel, 1, Seconds(sent),
                               link.kernel == "physics" ? Origin::assumed : Origin::fitted}});
      }
      sum.communication_s += sent;
      sum.kernels_s += sent;
    }
    const PipelineTimes alone = pipeline_times({&times, 1});
    for (const std::size_t place : kind.places) {
      schedule.resize(std::max(schedule.size(), place + 1));
      schedule[place] = times;
    }
    if (alone.longest_path_s <= path_s) continue;
    path_s = alone.longest_path_s;
    largest = std::move(sum);
    largest.half_width = wide / path_s;
    largest.assumed = assumed / path_s;
    report.stages.clear();
    const auto split = stage_layers(layers, first.deployment().pp, first.deployment().extra_layers);
    for (std::size_t s = 0; s < split.size(); ++s) {
      report.stages.push_back({static_cast<std::int64_t>(split[s].first), static_cast<std::int64_t>(split[s].count),
                               Seconds(times.stages[s])});
    }
    report.transfers.clear();
    for (const double sent : times.transfers) report.transfers.emplace_back(sent);
  }
  const PipelineTimes times = pipeline_times(schedule);
  report.micro_batches = static_cast<std::int64_t>(schedule.size());
  report.fill_drain = Seconds(times.fill_drain_s);
  report.period = Seconds(times.period_s);
  report.fill_drain_bubble_ratio = times.fill_drain_bubble_ratio;
  report.period_bubble_ratio = times.period_bubble_ratio;
  // Generation never drains: a sequence waits a period for its next token.
  largest.cost.seconds = question.workload.phase == Phase::decode ? times.period_s : times.fill_drain_s;
  if (const double waited = largest.cost.seconds - path_s; waited > 0) {
    largest.operators.push_back(
        {"pipeline", "waiting for other micro-batches", "pipeline", 1, Seconds(waited), Origin::fitted});
  }
  largest.flops = *std::ranges::max_element(flops);
  // What others compute meanwhile is work of the same kinds.
  const double stretch = largest.cost.seconds / path_s;
  for (double* part : {&largest.kernels_s, &largest.memory_s, &largest.communication_s, &largest.router_s}) {
    *part *= stretch;
  }
  return largest;
}

void append(StageAnswer& all, const StageAnswer& more) {
  const double both = all.cost.seconds + more.cost.seconds;
  all.half_width = (all.half_width * all.cost.seconds + more.half_width * more.cost.seconds) / both;
  all.assumed = (all.assumed * all.cost.seconds + more.assumed * more.cost.seconds) / both;
  all.cost.seconds += more.cost.seconds;
  all.kernels_s += more.kernels_s;
  all.memory_s += more.memory_s;
  all.communication_s += more.communication_s;
  all.router_s += more.router_s;
  all.flops += more.flops;
  all.operators.insert(all.operators.end(), more.operators.begin(), more.operators.end());
}

void repeat(StageAnswer& answer, double times) {
  for (double StageAnswer::* part : {&StageAnswer::kernels_s, &StageAnswer::memory_s, &StageAnswer::communication_s,
                                     &StageAnswer::router_s, &StageAnswer::flops}) {
    answer.*part *= times;
  }
  answer.cost.seconds *= times;
  for (OperatorCost& cost : answer.operators) {
    cost.count *= times;
    cost.latency = cost.latency * times;
    if (cost.flops) cost.flops = *cost.flops * times;
    if (cost.bytes) cost.bytes = *cost.bytes * times;
  }
}

Origin step_origin(const std::vector<OperatorCost>& operators, double seconds) {
  Origin origin = Origin::fitted;
  for (const OperatorCost& op : operators) {
    if (op.latency.value() >= kNoticed * seconds) origin = weakest(origin, op.origin);
  }
  return origin;
}

}  // namespace moecast
