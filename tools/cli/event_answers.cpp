#include "tools/cli/event_answers.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <utility>

#include "models/core/error.h"
#include "models/plan/engine.h"
#include "sim/analytic/parallel_efficiency.h"
#include "sim/cost/kernel/kernel_calibration.h"
#include "sim/event/sampled_step.h"
#include "sim/step/gpu_predictor.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/progress_bar.h"
#include "tools/cli/query_answers.h"
#include "tools/loop/interrupt.h"

namespace moecast {
namespace {

/// Progress of many answers, each of many samples.
class EventProgress {
 public:
  EventProgress(std::size_t answers, int samples) : all_(static_cast<double>(answers) * samples), samples_(samples) {}
  void operator()(int done) {
    const double ratio = (finished_ * samples_ + done) / all_;
    const double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    if (spent < kQuietSeconds) return;
    bar_.update("sampling routings", std::min(1.0, ratio), Seconds(std::max(0.0, spent / ratio - spent)));
  }
  void next() { ++finished_; }
  void clear() { bar_.clear(); }

 private:
  static constexpr double kQuietSeconds = 1;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  ProgressBar bar_;
  double all_;
  double samples_;
  double finished_ = 0;
};

std::uint64_t seed_of(const Query& query) { return query.workload.load.seed; }

/// @throws UsageError on a flag that needs several ranks.
void refuse_rank_flags(const EventFlags& flags) {
  const std::pair<bool, const char*> typed[] = {
      {!flags.system.empty(), "--system"},       {!flags.cluster.empty(), "--cluster"},
      {!flags.dispatch.empty(), "--dispatch"},   {!flags.exchange.empty(), "--exchange"},
      {!flags.flows.empty(), "--flows"},         {!flags.kernel.empty(), "--kernel"},
      {!flags.placement.empty(), "--placement"}, {!flags.slots.empty(), "--slots"},
      {!flags.chunks.empty(), "--chunks"},       {!flags.batches.empty(), "--batches"},
      {!flags.shadow.empty(), "--shadow"},       {!flags.background.empty(), "--background"},
      {!flags.noise.empty(), "--noise"},         {!flags.correlation.empty(), "--correlation"},
      {!flags.drift.empty(), "--drift"},         {!flags.slow_links.empty(), "--slow-link"},
      {!flags.slow_ranks.empty(), "--slow-rank"}};
  for (const auto& [given, flag] : typed) {
    if (given) throw UsageError(flag, "means nothing on a CPU profile: it is one rank", "name a GPU: moecast list hw");
  }
}

std::vector<Answer> cpu_answers(const QueryOptions& options, const EventFlags& flags, EventProgress& progress,
                                std::vector<Query> queries, const HardwareChoice& hardware) {
  refuse_rank_flags(flags);
  refuse_backend_typo(options.backend, hardware);
  if (!options.offload.policy.empty()) {
    throw UsageError("--offload", "of a CPU is of the analytic engine", "leave out --engine event");
  }
  const std::unique_ptr<Predictor> predictor = Predictor::load(hardware.folder, Engine::event);
  std::vector<Answer> answers;
  for (Query& query : queries) {
    fill_in_assumed(query, hardware);
    const EpOptions asked = ep_options_of(flags, seed_of(query));
    add_event_inputs(flags, asked, query.inputs);
    query.inputs.push_back({"hw_folder", hardware.folder, false});
    Prediction prediction = sample_step(*predictor, query.architecture, query.deployment, query.workload, asked.samples,
                                        asked.seed, std::ref(progress), &InterruptGuard::flag());
    answers.push_back({std::move(query), std::move(prediction)});
    progress.next();
  }
  return answers;
}

std::vector<Answer> gpu_answers(const QueryOptions& options, EventFlags flags, const DataFolders& folders,
                                const EventHardware& hardware, EventProgress& progress, std::vector<Query> queries) {
  const std::optional<MoeSystem> system = apply_system(flags, folders);
  const GpuMachine machine = read_gpu_machine(hardware.folder);
  const Cluster cluster = choose_cluster(flags.cluster, machine.profile.name, folders);
  std::unique_ptr<Predictor> closed;
  const auto analytic = [&]() -> const Predictor& {
    if (!closed) closed = load_gpu_predictor(hardware.folder, folders.engines);
    return *closed;
  };
  const auto training_step = [&](Query& query) {
    const TrainingEventOptions asked = training_options_of(flags);
    add_event_inputs(flags, asked, query.inputs);
    return predict_training_events(analytic(), machine, cluster, query.architecture, query.deployment, query.workload,
                                   asked);
  };
  const auto routed_layers = [&](Query& query) {
    EpOptions asked = ep_options_of(flags, seed_of(query));
    if (system) {
      query.architecture = run_by(*system, query.architecture);
      asked.row_block = system->row_block;
      query.inputs.push_back({"system", system->name, true});
      query.inputs.push_back({"row_block", system->row_block, false});
    }
    asked.progress = std::ref(progress);
    asked.stop = &InterruptGuard::flag();
    if (query.deployment.redundant_experts > 0 && !flags.placement.empty() &&
        asked.placement.kind != PlacementKind::balanced) {
      throw UsageError("--placement", "copies of experts are placed by popularity", "leave it out, or the copies");
    }
    const Predictor* around = is_lone_block(query.architecture) ? nullptr : &analytic();
    const EngineSpec engine = take_engine(folders, query, asked);
    const bool overlaps = around != nullptr && flags.batches.empty() && engine.two_batch_overlap;
    Prediction prediction =
        overlaps ? predict_ep_overlapped(machine, cluster, query.architecture, query.deployment, query.workload, asked,
                                         around)
                 : predict_ep(machine, cluster, query.architecture, query.deployment, query.workload, asked, around);
    if (query.deployment.redundant_experts > 0) asked.placement = PlacementKind::balanced;
    add_event_inputs(flags, asked, query.inputs);
    return prediction;
  };
  std::vector<Answer> answers;
  for (Query& query : queries) {
    for (InputValue& input : query.inputs) {
      if (input.name == "load" && options.load.empty()) input.given = false;
    }
    query.inputs.push_back({"cluster", cluster.name, !flags.cluster.empty()});
    query.inputs.push_back({"hw_folder", hardware.folder, false});
    Prediction prediction;
    try {
      prediction = query.workload.phase == Phase::train ? training_step(query) : routed_layers(query);
      if (query.deployment.ep > 1 && prediction.latency) {
        rate_expert_parallelism(analytic(), query.architecture, query.deployment, query.workload, {}, prediction);
      }
    } catch (const InputError& error) {
      blame_flag(error, options.model);
    }
    answers.push_back({std::move(query), std::move(prediction)});
    progress.next();
  }
  return answers;
}

}  // namespace

EventHardware event_hardware(const QueryOptions& options, const DataFolders& folders) {
  EventHardware hardware;
  if (options.hw != "this-machine") {
    hardware.folder = profile_folder(folders, options.hw);
    std::error_code ignored;
    hardware.gpu = std::filesystem::exists(hardware.folder + "/" + std::string(kKernelCalibrationFile), ignored);
    if (hardware.gpu) return hardware;
  }
  const HardwareChoice choice = choose_hardware(options.hw, folders);
  hardware.folder = choice.folder;
  hardware.threads = choice.threads;
  return hardware;
}

std::optional<std::vector<Answer>> event_answers(const QueryOptions& options, const EventFlags& flags) {
  const InterruptGuard guard;
  if (!options.without.empty()) {
    throw UsageError("--without", "is of the analytic engine", "leave out --engine event");
  }
  const DataFolders folders = find_data_folders(options.data);
  const EventHardware hardware = event_hardware(options, folders);
  std::vector<Query> queries = make_queries(with_usual_load(options, hardware.gpu), folders, hardware.threads);
  EventProgress progress(queries.size(), ep_options_of(flags, 1).samples);
  std::vector<Answer> answers =
      hardware.gpu ? gpu_answers(options, flags, folders, hardware, progress, std::move(queries))
                   : cpu_answers(options, flags, progress, std::move(queries), choose_hardware(options.hw, folders));
  progress.clear();
  if (InterruptGuard::flag().load()) {
    note("interrupted: nothing is printed, an answer needs all its samples");
    return std::nullopt;
  }
  return answers;
}

}  // namespace moecast
