#include "sim/step/gpu_predictor.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "models/architecture/accounting.h"
#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "models/plan/deployment_rules.h"
#include "models/plan/graph.h"
#include "models/plan/memory.h"
#include "models/plan/stages.h"
#include "sim/analytic/analytic.h"
#include "sim/analytic/offload_cost.h"
#include "sim/analytic/training_run.h"
#include "sim/step/context_parallel.h"
#include "sim/step/gpu_training.h"
#include "sim/step/pipeline_schedule.h"
#include "sim/step/popularity.h"
#include "sim/step/step_pipeline.h"

namespace moecast {
namespace {

constexpr std::size_t kMostModels = 64;

bool is_communication(StepGroup group) { return group == StepGroup::communication; }
bool is_router(const StepOperator& op) { return op.name == "router"; }

/// A micro-batch on one stage.
struct StageAnswer {
  StepTimes times{};
  StepCost cost;
  double half_width = 0;
  double kernels_s = 0;
  double memory_s = 0;
  double communication_s = 0;
  double router_s = 0;
  double flops = 0;
  std::vector<OperatorCost> operators;
};

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
    }
  }
}

/// One after the other; what errs, errs together.
void append(StageAnswer& all, const StageAnswer& more) {
  all.half_width = (all.half_width * all.cost.seconds + more.half_width * more.cost.seconds) /
                   (all.cost.seconds + more.cost.seconds);
  all.cost.seconds += more.cost.seconds;
  all.kernels_s += more.kernels_s;
  all.memory_s += more.memory_s;
  all.communication_s += more.communication_s;
  all.router_s += more.router_s;
  all.flops += more.flops;
  all.operators.insert(all.operators.end(), more.operators.begin(), more.operators.end());
}

class GpuPredictor final : public Predictor {
 public:
  GpuPredictor(const std::string& folder, std::string engines)
      : profile_(read_profile(folder)),
        kernels_(read_kernel_calibration(folder, profile_.name)),
        engines_(std::move(engines)) {}

  [[nodiscard]] Prediction predict(const Architecture& architecture, const Deployment& asked, const Workload& workload,
                                   const Without& without) const override {
    const bool replicates = !is_lone_block(architecture) && asked.ep > 1 && asked.tp * asked.dp * asked.cp == 1;
    if (!replicates) return predict_on(architecture, asked, workload, without);
    // Experts lie on the ranks that attention lies on: with nothing said of these, each has a copy of it.
    Deployment replicated = asked;
    replicated.dp = asked.ep;
    Prediction prediction = predict_on(architecture, replicated, workload, without);
    prediction.warnings.insert(prediction.warnings.begin(),
                               "attention has " + std::to_string(asked.ep) +
                                   " replicas, one on each of the experts' ranks (say --tp or --dp for another split)");
    return prediction;
  }

 private:
  [[nodiscard]] Prediction predict_on(const Architecture& architecture, const Deployment& asked,
                                      const Workload& workload, const Without& without) const {
    if (workload.phase == Phase::train) return predict_training(architecture, asked, workload, without);
    refuse_phase(architecture, asked, workload);
    if (!workload.rows_per_expert.empty()) {
      throw InputError("rows_per_expert", "are not supported yet on GPUs", "write --load");
    }
    Deployment deployment = with_resident_experts(architecture, asked, workload, capacity());
    if (deployment.backend.empty()) deployment.backend = "vllm";
    const EngineSpec& engine = engine_of(deployment.backend);
    deployment.extra_layers = engine.pipeline.extra_layers;
    const Passes passes = passes_of(architecture, deployment, engine, workload, without);
    if (!is_lone_block(architecture)) require_consistent(architecture, deployment);
    Prediction prediction;
    prediction.memory = memory_of(architecture, deployment, workload);
    const ParameterCount count = count_parameters(architecture);
    prediction.total_parameters = count.total;
    prediction.active_parameters = count.active;
    const MemoryPerRank& memory = prediction.memory;
    if (memory.capacity && memory.total() > *memory.capacity) {
      prediction.status = Status::does_not_fit;
      prediction.reason = "needs " + format_bytes(memory.total()) + " a rank, " + format_bytes(*memory.capacity) +
                          " are there: " + format_bytes(memory.total() - *memory.capacity) + " too much";
      return prediction;
    }
    for (const Pass& pass : passes) {
      if (const std::vector<std::string> missing = pass.model->not_executed(); !missing.empty()) {
        prediction.status = Status::outside_range;
        prediction.reason = missing.front() + " is not supported yet on GPUs";
        return prediction;
      }
    }
    const bool fetches = fetches_experts(architecture, deployment, workload);
    fill(passes, architecture, deployment, workload, fetches, without, prediction);
    for (const Pass& pass : passes) warn(*pass.model, architecture, workload, prediction);
    if (const std::string missing = not_offered(architecture, deployment, engine);
        !missing.empty() && !is_lone_block(architecture)) {
      prediction.warnings.push_back(missing);
    }
    if (deployment.offload) {
      charge_offload(architecture, deployment, workload, host_link(profile_, *deployment.offload), without, prediction);
    }
    if (fetches && !is_lone_block(architecture)) {
      prediction.warnings.emplace_back(
          "the host sees which experts to fetch: no graph is replayed, launches are eager");
    }
    return prediction;
  }

  /// A stack of the model and what it computes in the step.
  struct Pass {
    std::shared_ptr<const StepPipeline> model;
    std::shared_ptr<const StepPipeline> even;  ///< experts chosen alike, where imbalance is to be removed; else null
    Workload workload;
    bool encodes = false;
  };
  using Passes = std::vector<Pass>;

  static void refuse_phase(const Architecture& architecture, const Deployment& deployment, const Workload& workload) {
    const bool encodes = workload.phase == Phase::encode;
    if ((encodes ? architecture.encoder : architecture.decoder).empty()) {
      throw InputError("phase", architecture.name + " has no " + (encodes ? "encoder" : "decoder") + " layers to run",
                       encodes ? "choose decode, prefill or mixed" : "choose encode");
    }
    if (architecture.encoder.empty()) return;
    if (deployment.pp > 1) throw InputError("pp", "stages of an encoder are not supported yet", "leave it out");
    if (deployment.cp > 1) throw InputError("cp", "encoders are not split over contexts", "leave it out");
  }

  /// Encoders run before the prompts of the decoder.
  [[nodiscard]] Passes passes_of(const Architecture& architecture, const Deployment& deployment,
                                 const EngineSpec& engine, const Workload& workload, const Without& without) const {
    const double sigma = popularity_sigma(architecture, workload.load);
    Passes passes;
    const auto add = [&](const Architecture& stack, const Workload& work, bool encodes) {
      passes.push_back(
          {model_of(stack, deployment, engine, {sigma, workload.modalities}),
           without.expert_imbalance ? model_of(stack, deployment, engine, {0, workload.modalities}) : nullptr, work,
           encodes});
    };
    const std::int64_t prompts = workload.phase == Phase::mixed    ? workload.prefill_batch
                                 : workload.phase == Phase::decode ? 0
                                                                   : workload.batch;
    if (!architecture.encoder.empty() && prompts > 0) {
      Architecture encoder = architecture;
      encoder.hidden = stack_hidden(architecture, true);
      encoder.decoder = architecture.encoder;
      encoder.encoder.clear();
      encoder.vocabulary = 0;
      Workload encode = workload;
      encode.phase = Phase::prefill;
      encode.batch = prompts;
      encode.context = encode.prefill_batch = 0;
      encode.prompt = workload.phase == Phase::encode ? workload.prompt : source_tokens(workload);
      add(encoder, encode, true);
    }
    if (workload.phase != Phase::encode) add(architecture, workload, false);
    return passes;
  }

  [[nodiscard]] Prediction predict_training(const Architecture& architecture, const Deployment& deployment,
                                            const Workload& workload, const Without& without) const {
    static_cast<void>(with_resident_experts(architecture, deployment, workload, capacity()));  // refuses
    const MemoryPerRank memory = memory_of(architecture, deployment, workload);
    const OperatorGraph graph = build_graph(architecture, deployment, workload);
    Prediction prediction;
    if (memory.capacity && memory.total() > *memory.capacity) {
      prediction.status = Status::does_not_fit;
      prediction.reason = "needs " + format_bytes(memory.total()) + " a rank, " + format_bytes(*memory.capacity) +
                          " are there: " + format_bytes(memory.total() - *memory.capacity) + " too much";
    } else if (!graph.not_executed.empty()) {
      prediction.status = Status::outside_range;
      prediction.reason = graph.not_executed.front();
    } else {
      const GpuTrainingTimes times(kernels_, deployment);
      prediction = evaluate(graph, deployment, workload, [&](const Operator& op) { return times.of(op); }, {}, without);
      describe_training(architecture, deployment, workload, graph, *prediction.training);
      prediction.warnings = times.notes();
    }
    prediction.memory = memory;
    prediction.flops = flops_of(graph);
    const ParameterCount count = count_parameters(architecture);
    prediction.total_parameters = count.total;
    prediction.active_parameters = count.active;
    return prediction;
  }

  struct Known {
    Architecture architecture;
    Deployment deployment;
    StepRouting routing;
    std::shared_ptr<const StepPipeline> model;
  };

  const EngineSpec& engine_of(const std::string& backend) const {
    const std::lock_guard lock(mutex_);
    const auto found = engine_specs_.find(backend);
    if (found != engine_specs_.end()) return found->second;
    return engine_specs_.emplace(backend, read_engine(engines_, backend)).first->second;
  }

  std::shared_ptr<const StepPipeline> model_of(const Architecture& architecture, Deployment deployment,
                                               const EngineSpec& engine, const StepRouting& routing) const {
    deployment.micro_batches.reset();  // the same kernels serve any number
    deployment.offload.reset();        // and experts from anywhere
    const std::lock_guard lock(mutex_);
    for (const Known& known : known_) {
      if (known.routing == routing && known.deployment == deployment && known.architecture == architecture) {
        return known.model;
      }
    }
    auto model =
        std::make_shared<const StepPipeline>(make_step_pipeline(architecture, deployment, engine, kernels_, routing));
    if (known_.size() >= kMostModels) known_.erase(known_.begin());
    known_.push_back({architecture, deployment, routing, model});
    return model;
  }

  [[nodiscard]] MemoryPerRank memory_of(const Architecture& architecture, const Deployment& deployment,
                                        const Workload& workload) const {
    const MemoryBreakdown needed = memory_per_rank(architecture, deployment, workload);
    MemoryPerRank memory{needed.weights, needed.kv_cache,  needed.activations,      needed.workspace,
                         capacity(),     needed.gradients, needed.optimizer_states, needed.saved_activations};
    return memory;
  }

  [[nodiscard]] std::optional<Bytes> capacity() const {
    const HardwareQuantity* known = profile_.find("memory_capacity");
    return known != nullptr ? std::optional(Bytes(known->value)) : std::nullopt;
  }

  static std::int64_t on_rank(const StepModel& model, std::int64_t sequences) {
    const std::int64_t dp = model.deployment().dp;
    return (sequences + dp - 1) / dp;
  }

  static MicroBatch whole_batch(const StepModel& model, const Workload& w) {
    MicroBatch all;
    if (w.phase != Phase::prefill) all.decodes = on_rank(model, w.batch);
    if (w.phase != Phase::decode) all.prompts = on_rank(model, w.phase == Phase::mixed ? w.prefill_batch : w.batch);
    return all;
  }

  /// @param fetches  experts come from the host, which has to see the router's choice before it can go on.
  static StepShape shape_of(const StepModel& model, const Workload& w, const MicroBatch& batch, bool fetches,
                            StepTerms& terms) {
    const double dp = model.deployment().dp;
    StepShape shape;
    shape.decodes = static_cast<double>(batch.decodes);
    if (batch.decodes > 0) shape.decode_kv = static_cast<double>(w.context) + 1;
    shape.prompts = static_cast<double>(batch.prompts);
    shape.source = static_cast<double>(source_tokens(w));
    shape.context = shape.prompts * static_cast<double>(w.prompt);
    if (w.phase == Phase::prefill) shape.prefix = shape.prompts * static_cast<double>(w.context);
    const double all_ranks = shape.decodes + shape.context;
    const int cp = model.deployment().cp;
    shape = context_share(shape, cp);
    terms.tokens = shape.decodes + shape.context;
    terms.launch = fetches ? StepLaunch::eager : model.launch_of(terms.tokens, shape.context > 0);
    shape.rows = fetches ? terms.tokens : model.padded(terms.tokens);
    shape.expert_rows = (cp == 1 ? shape.rows : std::max(shape.rows, all_ranks)) * dp;
    return shape;
  }

  /// Seconds of one operator without the factors that are to be removed.
  static double remaining(const StepOperator& op, double seconds, double memory_share, const Without& without) {
    if (without.all_to_all && is_communication(op.group)) return 0;
    if (without.routing_overhead && is_router(op)) return 0;
    if (without.memory_bandwidth && !is_communication(op.group)) return seconds * (1 - memory_share);
    return seconds;
  }

  /// @param even  the same with experts chosen alike, where their imbalance is to be removed; may be null.
  [[nodiscard]] StageAnswer answer_of(const StepModel& model, const StepModel* even, const MicroBatch& batch, bool lone,
                                      const Workload& workload, bool fetches, const Without& without) const {
    StepTerms terms;
    StepShape shape = shape_of(model, workload, batch, fetches, terms);
    if (lone) {  // a layer by itself, replayed: no engine pads it
      terms.launch = StepLaunch::graph;
      shape.rows = terms.tokens;
      shape.expert_rows = shape.rows * model.deployment().dp;
      shape.decodes = shape.prompts = shape.context = 0;
    }
    StageAnswer answer;
    const std::vector<StepOperator>& operators = model.operators().operators;
    for (std::size_t i = 0; i < operators.size(); ++i) {
      const StepOperator& op = operators[i];
      double whole = op.count * op.seconds(shape);
      if (whole == 0) continue;
      // An uneven router touches fewer experts too: removing it never slows.
      if (even != nullptr) whole = std::min(whole, op.count * even->operators().operators[i].seconds(shape));
      const StepWork work = op.work ? op.work(shape) : StepWork{};
      const double moving = work.bytes / kernels_.device.bandwidth;
      const double computing = work.flops / kernels_.device.peak_bf16;
      const double share = moving + computing > 0 ? moving / (moving + computing) : 0;
      const double seconds = remaining(op, whole, share, without);
      answer.times[static_cast<std::size_t>(op.group)] += seconds;
      answer.flops += op.count * work.flops;
      if (is_communication(op.group)) {
        answer.communication_s += seconds;
      } else if (is_router(op)) {
        answer.router_s += seconds;
      } else {
        answer.memory_s += seconds == whole ? seconds * share : 0;
      }
      answer.operators.push_back({std::string(to_string(op.group)), op.name, op.kernel, op.count, Seconds(seconds),
                                  op.kernel == "physics" ? Origin::assumed : Origin::fitted});
    }
    answer.kernels_s = terms.kernels_s = sum(answer.times);
    EngineHost host = model.engine().host;
    if (lone) host = {};
    const StepCost cost = answer.cost = model.cost(terms, host);
    const auto add = [&](const char* name, double seconds) {
      if (seconds <= 0) return;
      answer.operators.push_back({"host", name, model.engine().name, 1, Seconds(seconds), Origin::fitted});
    };
    add("norms, rotary, gates, sampler", cost.other_s);
    add("elementwise kernels of prompts", cost.elementwise_s);
    add("launch and preparation beyond the kernels",
        cost.seconds - terms.kernels_s - cost.other_s - cost.elementwise_s);
    answer.half_width = model.half_width(answer.times, cost, terms.launch);
    return answer;
  }

  /// All stages and micro-batches of a step; the answer of the largest micro-batch on all stages is what is returned,
  /// its cost the time of the step.
  StageAnswer pass_stages(const StepPipeline& pipeline, const StepPipeline* even, const Workload& workload,
                          bool fetches, const Without& without, const Deployment& deployment, std::size_t layers,
                          PipelineReport& report) const {
    const StepModel& first = pipeline.front();
    const MicroBatch all = whole_batch(first, workload);
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
      for (std::size_t s = 0; s < pipeline.stages.size(); ++s) {
        const StepModel* flat = even != nullptr ? &even->stages[s] : nullptr;
        const StageAnswer stage = answer_of(pipeline.stages[s], flat, kind, false, workload, fetches, without);
        times.stages.push_back(stage.cost.seconds);
        wide += stage.half_width * stage.cost.seconds;
        sum.kernels_s += stage.kernels_s;
        sum.memory_s += stage.memory_s;
        sum.communication_s += stage.communication_s;
        sum.router_s += stage.router_s;
        flops[s] += stage.flops * static_cast<double>(kind.places.size());
        merge(sum.operators, stage.operators);
      }
      StepTerms terms;
      const StepShape shape = shape_of(first, workload, kind, fetches, terms);
      for (const StageLink& link : pipeline.links) {
        const double sent = without.all_to_all ? 0 : link.seconds(shape.rows);
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
    largest.cost.seconds = workload.phase == Phase::decode ? times.period_s : times.fill_drain_s;
    if (const double waited = largest.cost.seconds - path_s; waited > 0) {
      largest.operators.push_back(
          {"pipeline", "waiting for other micro-batches", first.engine().name, 1, Seconds(waited), Origin::fitted});
    }
    largest.flops = *std::ranges::max_element(flops);
    // What others compute meanwhile is work of the same kinds.
    const double stretch = largest.cost.seconds / path_s;
    for (double* part : {&largest.kernels_s, &largest.memory_s, &largest.communication_s, &largest.router_s}) {
      *part *= stretch;
    }
    return largest;
  }

  /// @param deployment  as asked for: models are kept for any number of micro-batches.
  void fill(const Passes& passes, const Architecture& architecture, const Deployment& deployment,
            const Workload& workload, bool fetches, const Without& without, Prediction& prediction) const {
    const StepModel& model = passes.front().model->front();
    StageAnswer answer;
    for (const Pass& pass : passes) {
      const StepPipeline* even = pass.even.get();
      StageAnswer one;
      if (pass.model->stages.size() == 1) {
        one = answer_of(pass.model->front(), even != nullptr ? &even->front() : nullptr,
                        whole_batch(pass.model->front(), pass.workload), is_lone_block(architecture), pass.workload,
                        fetches, without);
      } else {
        one = pass_stages(*pass.model, even, pass.workload, fetches, without, deployment, architecture.decoder.size(),
                          prediction.pipeline.emplace());
      }
      if (pass.encodes && passes.size() > 1) {
        for (OperatorCost& cost : one.operators) cost.name = "encoder." + cost.name;
      }
      if (&pass == &passes.front()) {
        answer = std::move(one);
      } else {
        append(answer, one);
      }
    }
    prediction.operators = std::move(answer.operators);
    const double seconds = answer.cost.seconds;
    const EngineSpec& engine = model.engine();
    const double half = answer.half_width;
    const bool calibrated = architecture.name == engine.calibrated_model && profile_.name == engine.calibrated_system &&
                            model.deployment().pp == 1 && model.deployment().cp == 1;
    prediction.latency = Seconds(seconds);
    prediction.low = Seconds(seconds * std::exp(-(calibrated ? half : std::max(half, engine.tpot_interval[0]))));
    prediction.high = Seconds(seconds * std::exp(calibrated ? half : std::max(half, engine.tpot_interval[1])));
    prediction.origin = Origin::fitted;
    prediction.flops = Flops(answer.flops);
    prediction.throughput_tokens_per_s = step_tokens(workload) / seconds;
    Factors& factors = prediction.factors;
    factors.all_to_all = Seconds(answer.communication_s);
    factors.routing_overhead = Seconds(answer.router_s);
    factors.memory_bandwidth = Seconds(answer.memory_s);
    factors.compute = Seconds(std::max(0.0, seconds - answer.communication_s - answer.router_s - answer.memory_s));
    if (model.deployment().ep == 1) factors.expert_parallel_efficiency_ratio = 1;
    const double launch = seconds - answer.kernels_s;
    const std::array<std::pair<double, const char*>, 5> causes{
        {{answer.communication_s, "all_to_all"},
         {answer.router_s, "router"},
         {answer.memory_s, "memory_bandwidth"},
         {answer.kernels_s - answer.communication_s - answer.router_s - answer.memory_s, "compute"},
         {launch, "launch"}}};
    prediction.bottleneck = std::ranges::max_element(causes)->second;
  }

  static void warn(const StepPipeline& pipeline, const Architecture& architecture, const Workload& workload,
                   Prediction& prediction) {
    const StepModel& model = pipeline.front();
    const auto add = [&](const std::string& text) {
      if (std::ranges::find(prediction.warnings, text) == prediction.warnings.end()) {
        prediction.warnings.push_back(text);
      }
    };
    const std::int64_t longest = workload.context + (workload.phase == Phase::decode ? 1 : workload.prompt);
    if (architecture.max_context > 0 && longest > architecture.max_context) {
      add("sequences of " + std::to_string(longest) + " tokens exceed the " + std::to_string(architecture.max_context) +
          " that " + architecture.name + " is made for");
    }
    if (model.deployment().pp * model.deployment().cp > 1) {
      add("pipeline stages and context parallelism: no step with them was measured; the interval is that of "
          "deployments "
          "that were not seen");
    }
    if (!is_lone_block(architecture)) {
      add("host of " + model.engine().name + ": " + model.engine().host_source);
    }
    if (!workload.tasks.tasks.empty()) {
      add("tasks: kernels run as for one task; experts that are fetched know the mix");
    }
    for (const std::string& note : pipeline.notes()) add(note);
    if (!architecture.multi_token_prediction.empty()) {
      add("the layers of multi-token prediction are not part of the step");
    }
  }

  Profile profile_;
  KernelCalibration kernels_;
  std::string engines_;
  mutable std::mutex mutex_;
  mutable std::vector<Known> known_;
  mutable std::map<std::string, EngineSpec> engine_specs_;  ///< never erased: references stay
};

}  // namespace

std::unique_ptr<Predictor> load_gpu_predictor(const std::string& folder, const std::string& engines) {
  return std::make_unique<GpuPredictor>(folder, engines);
}

}  // namespace moecast
