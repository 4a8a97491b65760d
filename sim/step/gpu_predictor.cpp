#include "sim/step/gpu_predictor.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>
#include <vector>

#include "models/architecture/accounting.h"
#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "models/plan/graph.h"
#include "models/plan/memory.h"
#include "sim/step/popularity.h"
#include "sim/step/step_model.h"

namespace moecast {
namespace {

constexpr std::size_t kMostModels = 64;

bool is_communication(StepGroup group) { return group == StepGroup::communication; }
bool is_router(const StepOperator& op) { return op.name == "router"; }

class GpuPredictor final : public Predictor {
 public:
  GpuPredictor(const std::string& folder, std::string engines)
      : profile_(read_profile(folder)),
        kernels_(read_kernel_calibration(folder, profile_.name)),
        engines_(std::move(engines)) {}

  [[nodiscard]] Prediction predict(const Architecture& architecture, const Deployment& asked, const Workload& workload,
                                   const Without& without) const override {
    if (workload.phase == Phase::encode || !architecture.encoder.empty()) {
      throw InputError("phase", "encoders on GPUs are not supported yet", "ask for a decoder-only model");
    }
    if (!workload.rows_per_expert.empty()) {
      throw InputError("rows_per_expert", "are not supported yet on GPUs", "write --load");
    }
    Deployment deployment = asked;
    if (deployment.backend.empty()) deployment.backend = "vllm";
    const std::shared_ptr<const StepModel> model =
        model_of(architecture, deployment, popularity_sigma(architecture, workload.load));
    const std::shared_ptr<const StepModel> even =
        without.expert_imbalance ? model_of(architecture, deployment, 0) : nullptr;
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
    if (!model->operators().not_executed.empty()) {
      prediction.status = Status::outside_range;
      prediction.reason = model->operators().not_executed.front() + " is not supported yet on GPUs";
      return prediction;
    }
    fill(*model, even.get(), architecture, workload, without, prediction);
    warn(*model, architecture, workload, prediction);
    return prediction;
  }

 private:
  struct Known {
    Architecture architecture;
    Deployment deployment;
    double sigma;
    std::shared_ptr<const StepModel> model;
  };

  static bool same(const Deployment& a, const Deployment& b) {
    return a.tp == b.tp && a.ep == b.ep && a.dp == b.dp && a.pp == b.pp && a.moe_tp == b.moe_tp &&
           a.backend == b.backend && a.dtype == b.dtype;
  }

  std::shared_ptr<const StepModel> model_of(const Architecture& architecture, const Deployment& deployment,
                                            double sigma) const {
    const std::lock_guard lock(mutex_);
    for (const Known& known : known_) {
      if (known.sigma == sigma && same(known.deployment, deployment) && known.architecture == architecture) {
        return known.model;
      }
    }
    EngineSpec engine = read_engine(engines_, deployment.backend);
    StepOperators operators = make_step_operators(architecture, deployment, engine, kernels_, {sigma});
    auto model =
        std::make_shared<const StepModel>(std::move(operators), std::move(engine), deployment, kernels_.device);
    if (known_.size() >= kMostModels) known_.erase(known_.begin());
    known_.push_back({architecture, deployment, sigma, model});
    return model;
  }

  [[nodiscard]] MemoryPerRank memory_of(const Architecture& architecture, const Deployment& deployment,
                                        const Workload& workload) const {
    const MemoryBreakdown needed = memory_per_rank(architecture, deployment, workload);
    MemoryPerRank memory{needed.weights, needed.kv_cache, needed.activations, needed.workspace, std::nullopt};
    if (const HardwareQuantity* capacity = profile_.find("memory_capacity")) memory.capacity = Bytes(capacity->value);
    return memory;
  }

  static StepShape shape_of(const StepModel& model, const Workload& w, StepTerms& terms) {
    const double dp = model.deployment().dp;
    const auto on_rank = [&](std::int64_t sequences) { return std::ceil(static_cast<double>(sequences) / dp); };
    StepShape shape;
    if (w.phase != Phase::prefill) {
      shape.decodes = on_rank(w.batch);
      shape.decode_kv = static_cast<double>(w.context) + 1;
    }
    if (w.phase != Phase::decode) {
      shape.prompts = on_rank(w.phase == Phase::mixed ? w.prefill_batch : w.batch);
      shape.context = shape.prompts * static_cast<double>(w.prompt);
      if (w.phase == Phase::prefill) shape.prefix = shape.prompts * static_cast<double>(w.context);
    }
    terms.tokens = shape.decodes + shape.context;
    terms.launch = model.launch_of(terms.tokens, shape.context > 0);
    shape.rows = model.padded(terms.tokens);
    shape.expert_rows = shape.rows * dp;
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
  void fill(const StepModel& model, const StepModel* even, const Architecture& architecture, const Workload& workload,
            const Without& without, Prediction& prediction) const {
    const bool lone = is_lone_block(architecture);
    StepTerms terms;
    StepShape shape = shape_of(model, workload, terms);
    if (lone) {  // a layer by itself, replayed: no engine pads it
      terms.launch = StepLaunch::graph;
      shape.rows = terms.tokens;
      shape.expert_rows = shape.rows * model.deployment().dp;
      shape.decodes = shape.prompts = shape.context = 0;
    }
    StepTimes times{};
    double memory_s = 0;
    double communication_s = 0;
    double router_s = 0;
    double flops = 0;
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
      times[static_cast<std::size_t>(op.group)] += seconds;
      flops += op.count * work.flops;
      if (is_communication(op.group)) {
        communication_s += seconds;
      } else if (is_router(op)) {
        router_s += seconds;
      } else {
        memory_s += seconds == whole ? seconds * share : 0;
      }
      prediction.operators.push_back({std::string(to_string(op.group)), op.name, op.kernel, op.count, Seconds(seconds),
                                      op.kernel == "physics" ? Origin::assumed : Origin::fitted});
    }
    terms.kernels_s = sum(times);
    EngineHost host = model.engine().host;
    if (lone) host = {};
    const StepCost cost = model.cost(terms, host);
    const auto add = [&](const char* name, double seconds, Origin origin) {
      if (seconds <= 0) return;
      prediction.operators.push_back({"host", name, model.engine().name, 1, Seconds(seconds), origin});
    };
    add("norms, rotary, gates, sampler", cost.other_s, Origin::fitted);
    add("elementwise kernels of prompts", cost.elementwise_s, Origin::fitted);
    add("launch and preparation beyond the kernels", cost.seconds - terms.kernels_s - cost.other_s - cost.elementwise_s,
        Origin::fitted);
    const EngineSpec& engine = model.engine();
    const double half = model.half_width(times, cost, terms.launch);
    const bool calibrated = architecture.name == engine.calibrated_model && profile_.name == engine.calibrated_system;
    prediction.latency = Seconds(cost.seconds);
    prediction.low = Seconds(cost.seconds * std::exp(-(calibrated ? half : std::max(half, engine.tpot_interval[0]))));
    prediction.high = Seconds(cost.seconds * std::exp(calibrated ? half : std::max(half, engine.tpot_interval[1])));
    prediction.origin = Origin::fitted;
    prediction.flops = Flops(flops);
    prediction.throughput_tokens_per_s = step_tokens(workload) / cost.seconds;
    Factors& factors = prediction.factors;
    factors.all_to_all = Seconds(communication_s);
    factors.routing_overhead = Seconds(router_s);
    factors.memory_bandwidth = Seconds(memory_s);
    factors.compute = Seconds(std::max(0.0, cost.seconds - communication_s - router_s - memory_s));
    if (model.deployment().ep == 1) factors.expert_parallel_efficiency_ratio = 1;
    const double launch = cost.seconds - terms.kernels_s;
    const std::array<std::pair<double, const char*>, 5> causes{
        {{communication_s, "all_to_all"},
         {router_s, "router"},
         {memory_s, "memory_bandwidth"},
         {terms.kernels_s - communication_s - router_s - memory_s, "compute"},
         {launch, "launch"}}};
    prediction.bottleneck = std::ranges::max_element(causes)->second;
  }

  static void warn(const StepModel& model, const Architecture& architecture, const Workload& workload,
                   Prediction& prediction) {
    const std::int64_t longest = workload.context + (workload.phase == Phase::decode ? 1 : workload.prompt);
    if (architecture.max_context > 0 && longest > architecture.max_context) {
      prediction.warnings.push_back("sequences of " + std::to_string(longest) + " tokens exceed the " +
                                    std::to_string(architecture.max_context) + " that " + architecture.name +
                                    " is made for");
    }
    if (!is_lone_block(architecture)) {
      prediction.warnings.push_back("host of " + model.engine().name + ": " + model.engine().host_source);
    }
    for (const std::string& note : model.operators().notes) prediction.warnings.push_back(note);
    if (!architecture.multi_token_prediction.empty()) {
      prediction.warnings.emplace_back("the layers of multi-token prediction are not part of the step");
    }
  }

  Profile profile_;
  KernelCalibration kernels_;
  std::string engines_;
  mutable std::mutex mutex_;
  mutable std::vector<Known> known_;
};

}  // namespace

std::unique_ptr<Predictor> load_gpu_predictor(const std::string& folder, const std::string& engines) {
  return std::make_unique<GpuPredictor>(folder, engines);
}

}  // namespace moecast
