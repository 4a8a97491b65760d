#include "sim/analytic/stack_batch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "models/architecture/accounting.h"
#include "models/architecture/fingerprint.h"
#include "models/core/error.h"
#include "models/plan/graph_builder.h"
#include "models/plan/memory.h"
#include "sim/analytic/analytic.h"

namespace moecast {
namespace {

enum Column { kLatency, kMemory, kCompute, kRouting, kExtrapolated, kSpread };

int kind_slot(OperatorKind kind) {
  switch (kind) {
    case OperatorKind::gemm: return 0;
    case OperatorKind::grouped_gemm: return 1;
    case OperatorKind::activation: return 2;
    case OperatorKind::norm: return 3;
    case OperatorKind::elementwise: return 4;
    case OperatorKind::router: return 5;
    case OperatorKind::permute: return 6;
    case OperatorKind::unpermute: return 7;
    case OperatorKind::attention_prefill: return 8;
    case OperatorKind::attention_decode: return 9;
    case OperatorKind::embedding: return 10;
    default: return 11;
  }
}

/// Fills in what nobody asked for: a backend that was profiled in the dtype, a dtype that the backend was profiled in.
Deployment complete(Deployment deployment, const Profile& profile) {
  for (const ProfileBackend& backend : profile.backends) {
    if (!deployment.backend.empty() && backend.name != deployment.backend) continue;
    if (deployment.dtype && backend.dtype != *deployment.dtype) continue;
    deployment.backend = backend.name;
    deployment.dtype = backend.dtype;
    break;
  }
  return deployment;
}

double nan() { return std::numeric_limits<double>::quiet_NaN(); }

void put(std::span<double> column, std::size_t row, double value) {
  if (!column.empty()) column[row] = value;
}

}  // namespace

/// A row while it is added up.
struct StackBatch::Sum {
  std::array<double, kColumns> cost{};
  Totals totals;
  bool executed = true;
};

void StackBatch::Totals::add(const Totals& more) noexcept {
  parameters += more.parameters;
  active += more.active;
  flops += more.flops;
  calls += more.calls;
  weights += more.weights;
  cache += more.cache;
  activations = std::max(activations, more.activations);
  workspace = std::max(workspace, more.workspace);
}

StackBatch::StackBatch(Profile profile, std::shared_ptr<const Calibration> calibration, Deployment deployment,
                       Workload workload)
    : profile_(std::move(profile)),
      calibration_(std::move(calibration)),
      model_(make_cost_model(calibration_)),
      deployment_(complete(std::move(deployment), profile_)),
      workload_(std::move(workload)) {
  if (workload_.phase == Phase::train) {
    throw InputError("phase", "training steps are not asked in batches", "ask one by one: Predictor.predict");
  }
  if (deployment_.tp * deployment_.dp * deployment_.pp * deployment_.ep != 1) {
    throw InputError("deployment", "a batch of whole models runs on one rank", "leave out tp, dp, pp and ep");
  }
  const DType dtype = deployment_.dtype.value_or(DType::fp32);
  factor_ = calibration_->closures.factor(deployment_.backend, dtype, deployment_.threads, deployment_.strategy);
  interval_ratio_ = calibration_->closures.interval_ratio;
  if (const HardwareQuantity* capacity = profile_.find("memory_capacity")) capacity_bytes_ = capacity->value;
}

std::unique_ptr<StackBatch> StackBatch::load(const std::string& folder, Deployment deployment, Workload workload) {
  return std::make_unique<StackBatch>(read_profile(folder),
                                      std::make_shared<const Calibration>(read_calibration(folder)),
                                      std::move(deployment), std::move(workload));
}

std::string StackBatch::first_unknown(const OperatorGraph& graph) const {
  if (!graph.not_executed.empty()) return graph.not_executed.front();
  for (const Operator& op : graph.operators) {
    const KernelPoint point = kernel_point(op, graph, deployment_);
    if (!model_.knows(point.kind, point.backend, point.dtype, point.threads)) {
      return profile_.name + " holds no " + std::string(to_string(point.kind)) + " of " + point.backend + " in " +
             std::string(to_string(point.dtype)) + " on " + std::to_string(point.threads) + " threads";
    }
  }
  return {};
}

StackBatch::Part StackBatch::make_part(const Architecture& frame, const Layer* layer, bool encoder, bool rests) const {
  Architecture alone = frame;
  alone.encoder.clear();
  alone.decoder.clear();
  GraphBuilder builder(frame, deployment_, workload_);
  builder.begin_stack(encoder);
  Part part;
  if (layer != nullptr) {
    alone.vocabulary = 0;
    alone.other_parameters = alone.position_embedding_parameters = 0;
    (encoder ? alone.encoder : alone.decoder).push_back(*layer);
    if (!rests) builder.layer(*layer, "layer", 1, true);
  } else if (frame.vocabulary > 0 && !rests) {
    builder.embedding();
    if (!encoder) builder.head();
  }
  part.graph = builder.finish();
  part.problem = first_unknown(part.graph);
  part.stored = part.graph.stored_weights.value();
  part.activations = part.graph.layer_activations.value();
  part.kv = part.graph.footprint.value() - part.stored - part.activations;
  part.layer = layer != nullptr ? part.graph.layer_footprint.value() - part.activations : 0;
  for (const Operator& op : part.graph.operators) {
    part.totals.flops += op.flops.value() * op.count;
    double calls = op.rows.empty() ? 1 : 0;
    for (const RowGroup& group : op.rows) calls += group.experts;
    part.totals.calls += calls * op.count;
  }
  // The encoder's end counts nothing but its final norm where both stacks share a table.
  if (layer == nullptr && encoder && stack_hidden(frame, true) == frame.hidden) alone.vocabulary = 0;
  if (layer == nullptr && encoder) {
    alone.hidden = stack_hidden(frame, true);
    alone.tied_embeddings = true;
    alone.other_parameters = alone.position_embedding_parameters = 0;
  }
  const MemoryBreakdown memory = memory_per_rank(alone, deployment_, workload_);
  part.totals.weights = memory.weights.value();
  part.totals.cache = memory.kv_cache.value();
  part.totals.activations = memory.activations.value();
  part.totals.workspace = memory.workspace.value();
  const ParameterCount count = count_parameters(alone);
  const double final_norm = static_cast<double>(stack_hidden(frame, encoder));
  part.totals.parameters = count.total + (layer != nullptr ? -final_norm : final_norm);
  part.totals.active = count.active + (layer != nullptr ? -final_norm : final_norm);
  part.nodes.assign(std::size_t{kStepNodes} * kLayerNodes, -1);
  return part;
}

std::int32_t StackBatch::stacked(std::span<const std::int32_t> layers) {
  if (layers.empty()) throw InputError("layers", "are none", "give at least one number of parts_of");
  for (const std::int32_t number : layers) {
    if (number < 0 || number >= static_cast<std::int32_t>(parts_.size())) {
      throw InputError("layers", std::to_string(number) + " is the number of no part", "numbers come from parts_of");
    }
  }
  if (layers.size() == 1) return layers.front();
  std::string key = "s";
  for (const std::int32_t number : layers) key += std::to_string(number) + ',';
  const auto [known, fresh] = numbers_.try_emplace(std::move(key), static_cast<std::int32_t>(parts_.size()));
  if (!fresh) return known->second;
  Part all;
  all.members.assign(layers.begin(), layers.end());
  for (const std::int32_t number : layers) {
    const Part& part = parts_[static_cast<std::size_t>(number)];
    if (all.problem.empty()) all.problem = part.problem;
    all.stored += part.stored;
    all.kv += part.kv;
    all.activations += part.activations;
    all.layer += part.layer;
    all.totals.add(part.totals);
  }
  all.nodes.assign(std::size_t{kStepNodes} * kLayerNodes, -1);
  parts_.push_back(std::move(all));
  return known->second;
}

std::int32_t StackBatch::intern(const Architecture& frame, const Layer* layer, bool encoder, bool rests) {
  if (layer != nullptr && layer->blocks.size() > 1) {
    std::vector<std::int32_t> blocks;
    for (const Block& block : layer->blocks) {
      const Layer alone{{block}};
      blocks.push_back(intern(frame, &alone, encoder, rests));
    }
    return stacked(blocks);
  }
  std::string key;
  append_frame_fingerprint(frame, key);
  key += encoder ? 'e' : 'd';
  key += rests ? 'r' : 'x';
  if (layer != nullptr) append_fingerprint(*layer, key);
  const auto found = numbers_.find(key);
  if (found != numbers_.end()) return found->second;
  parts_.push_back(make_part(frame, layer, encoder, rests));
  const auto number = static_cast<std::int32_t>(parts_.size() - 1);
  numbers_.emplace(std::move(key), number);
  return number;
}

std::vector<std::int32_t> StackBatch::parts_of(const Architecture& architecture) {
  const bool encodes = workload_.phase == Phase::encode;
  if ((encodes ? architecture.encoder : architecture.decoder).empty()) {
    throw InputError("phase", architecture.name + " has no " + (encodes ? "encoder" : "decoder") + " layers to run",
                     encodes ? "choose decode, prefill or mixed" : "choose encode");
  }
  if (is_lone_block(architecture)) {
    throw InputError("", architecture.name + " is a lone block", "a batch of layers takes columns of them");
  }
  Architecture frame = architecture;
  frame.encoder.clear();
  frame.decoder.clear();
  frame.multi_token_prediction.clear();
  std::vector<std::int32_t> numbers;
  const bool both =
      workload_.phase == Phase::prefill || (workload_.phase == Phase::mixed && workload_.prefill_batch > 0);
  const auto add = [&](const std::vector<Layer>& stack, bool encoder, bool rests) {
    if (stack.empty()) return;
    numbers.push_back(intern(frame, nullptr, encoder, rests));
    for (const Layer& layer : stack) numbers.push_back(intern(frame, &layer, encoder, rests));
  };
  add(architecture.encoder, true, !encodes && !both);
  add(architecture.decoder, false, encodes);
  return numbers;
}

StackBatch::Place StackBatch::place_of(std::span<const std::int32_t> row) const noexcept {
  double stored = 0, kv = 0, activations = 0, layer = 0;
  for (const std::int32_t number : row) {
    if (number < 0) continue;
    const Part& part = parts_[static_cast<std::size_t>(number)];
    stored += part.stored;
    kv += part.kv;
    activations = std::max(activations, part.activations);
    layer = std::max(layer, part.layer);
  }
  Place place;
  const double bytes = std::max(1.0, stored + kv + activations);
  const double step = std::clamp(2 * std::log2(bytes) - kStepFirst, 0.0, kStepNodes - 2.0);
  const double inner = std::clamp(std::log2(std::max(1.0, layer + activations)) - kLayerFirst, 0.0, kLayerNodes - 2.0);
  place.step = static_cast<int>(step);
  place.layer = static_cast<int>(inner);
  place.step_weight = step - place.step;
  place.layer_weight = inner - place.layer;
  return place;
}

std::int32_t StackBatch::cost_at(std::int32_t number, int step, int layer) {
  const auto place = static_cast<std::size_t>(step * kLayerNodes + layer);
  const auto node = [&]() -> std::int32_t& { return parts_[static_cast<std::size_t>(number)].nodes[place]; };
  if (node() >= 0) return node();
  Costs costs{};
  for (const std::int32_t member : parts_[static_cast<std::size_t>(number)].members) {
    const Costs& part = costs_[static_cast<std::size_t>(cost_at(member, step, layer))];
    for (std::size_t c = 0; c < kColumns; ++c) costs[c] += part[c];
  }
  OperatorGraph nodes;
  nodes.footprint = Bytes(std::exp2((step + kStepFirst) / 2.0));
  nodes.layer_footprint = Bytes(std::exp2(layer + kLayerFirst));
  for (const Operator& op : parts_[static_cast<std::size_t>(number)].graph.operators) {
    const OperatorTime time = time_of(op, nodes, deployment_, model_);
    costs[kLatency] += time.latency.value();
    if (op.stage == "router" || op.stage == "dispatch" || op.stage == "combine") {
      costs[kRouting] += time.latency.value();
    } else {
      costs[kMemory] += time.memory.value();
      costs[kCompute] += time.compute.value();
    }
    if (time.origin == Origin::extrapolated) costs[kExtrapolated] = 1;
    costs[static_cast<std::size_t>(kSpread + kind_slot(op.kind))] += time.latency.value() * time.half_width;
  }
  costs_.push_back(costs);
  return node() = static_cast<std::int32_t>(costs_.size() - 1);
}

void StackBatch::prepare(const StackRows& rows) {
  if (rows.width == 0 || rows.parts.size() % rows.width != 0) {
    throw InputError("parts", "is no table of rows", "give an array of shape [models, parts]");
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const std::int32_t number : rows.row(i)) {
      if (number < -1 || number >= static_cast<std::int32_t>(parts_.size())) {
        throw InputError("parts[" + std::to_string(i) + "]", std::to_string(number) + " is the number of no part",
                         "numbers come from parts_of; -1 stands for nothing");
      }
    }
    const Place place = place_of(rows.row(i));
    for (const std::int32_t number : rows.row(i)) {
      if (number < 0) continue;
      if (!problem(number).empty()) continue;
      for (const int step : {place.step, place.step + 1}) {
        for (const int layer : {place.layer, place.layer + 1}) static_cast<void>(cost_at(number, step, layer));
      }
    }
  }
}

bool StackBatch::predict(const StackRows& rows, const StackTimes& times) const noexcept {
  const auto count = static_cast<std::int32_t>(parts_.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const std::int32_t number : rows.row(i)) {
      if (number < -1 || number >= count) return false;
    }
    const Place place = place_of(rows.row(i));
    const double upper = place.step_weight, right = place.layer_weight;
    const std::array weights{(1 - upper) * (1 - right), (1 - upper) * right, upper * (1 - right), upper * right};
    const auto base = static_cast<std::size_t>(place.step * kLayerNodes + place.layer);
    const std::array offsets{base, base + 1, base + kLayerNodes, base + kLayerNodes + 1};
    Sum sum;
    for (const std::int32_t number : rows.row(i)) {
      if (number < 0) continue;
      const Part& part = parts_[static_cast<std::size_t>(number)];
      sum.totals.add(part.totals);
      if (!part.problem.empty()) {
        sum.executed = false;
        continue;
      }
      for (std::size_t corner = 0; corner < 4; ++corner) {
        const std::int32_t node = part.nodes[offsets[corner]];
        if (node < 0) return false;
        const Costs& costs = costs_[static_cast<std::size_t>(node)];
        for (std::size_t c = 0; c < kColumns; ++c) sum.cost[c] += weights[corner] * costs[c];
      }
    }
    write(sum, i, times);
  }
  return true;
}

void StackBatch::write(const Sum& sum, std::size_t row, const StackTimes& times) const noexcept {
  const double memory = sum.totals.weights + sum.totals.cache + sum.totals.activations + sum.totals.workspace;
  StackStatus status = sum.executed ? StackStatus::ok : StackStatus::outside_range;
  if (capacity_bytes_ && memory > *capacity_bytes_) status = StackStatus::does_not_fit;
  const double factor = status == StackStatus::ok ? factor_ : nan();
  double squares = 0, spread = 0;
  for (std::size_t c = kSpread; c < kColumns; ++c) {
    squares += sum.cost[c] * sum.cost[c];
    spread += sum.cost[c];
  }
  const double half = std::sqrt((1 - kKindCorrelation) * squares + kKindCorrelation * spread * spread);
  const double ratio = sum.cost[kLatency] > 0 ? std::exp(half / sum.cost[kLatency] * interval_ratio_) : 1;
  const double latency = sum.cost[kLatency] * factor;
  put(times.latency_s, row, latency);
  put(times.low_s, row, latency / ratio);
  put(times.high_s, row, latency * ratio);
  put(times.memory_bandwidth_s, row, sum.cost[kMemory] * factor);
  put(times.compute_s, row, sum.cost[kCompute] * factor);
  put(times.routing_overhead_s, row, sum.cost[kRouting] * factor);
  put(times.memory_bytes, row, memory);
  put(times.parameters, row, sum.totals.parameters);
  put(times.active_parameters, row, sum.totals.active);
  put(times.flops, row, sum.executed ? sum.totals.flops : nan());
  put(times.calls, row, sum.executed ? sum.totals.calls : nan());
  if (!times.status.empty()) times.status[row] = static_cast<std::uint8_t>(status);
  if (!times.extrapolated.empty()) times.extrapolated[row] = sum.cost[kExtrapolated] > 0 ? 1 : 0;
}

}  // namespace moecast
