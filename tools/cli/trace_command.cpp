#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/quantity_text.h"
#include "models/plan/graph.h"
#include "sim/event/sampled_step.h"
#include "sim/event/trace.h"
#include "sim/event/training_events.h"
#include "sim/step/gpu_predictor.h"
#include "tools/cli/command.h"
#include "tools/cli/event_answers.h"
#include "tools/cli/query_answers.h"

namespace moecast {
namespace {

struct TraceOptions {
  QueryOptions query;
  EventFlags events;
  std::string out;
  std::string layers;
  std::string sample;
};

struct Written {
  double seconds = 0;
  std::int64_t events = 0;
  std::string text;
  std::string routing;  ///< where it is from
  std::vector<std::string> notes;
};

/// A trace of a million events is more than a browser opens.
constexpr std::int64_t kMostEvents = 4'000'000;

void refuse_large(std::int64_t events) {
  if (events <= kMostEvents) return;
  throw UsageError("--layers", fmt::format("makes more than {} events", kMostEvents), "fewer layers, or fewer ranks");
}

/// The first rank of each stage, for all of a stage do the same, and the links of all.
Written trace_training(const TraceOptions& options, const Query& query, const GpuMachine& machine,
                       const Cluster& cluster) {
  for (const auto& [typed, flag] : {std::pair(&options.layers, "--layers"), std::pair(&options.sample, "--sample")}) {
    if (!typed->empty()) throw UsageError(flag, "is of sampled routings, a training step has none", "leave it out");
  }
  const Deployment deployment = with_attention_replicas(query.deployment);
  TrainingEvents step;
  try {
    step = training_events(machine, cluster, query.architecture, deployment, query.workload,
                           training_options_of(options.events));
  } catch (const InputError& error) {
    blame_flag(error, options.query.model);
  }
  TraceWriter writer(1, {{0, "compute"}});
  writer.add(step.graph, step.times, 0, "");
  refuse_large(writer.events());
  Written written;
  written.seconds = step.step_s;
  written.notes = step.notes;
  written.text =
      writer.finish(fmt::format("moecast: a training step of {} on {}", query.architecture.name, cluster.name));
  written.events = writer.events();
  return written;
}

/// Events of a plan's layers: of a recorded step where the load is one, else of a sample that is drawn.
/// @return where the routing is from.
std::string draw_layers(EpPlan& plan, const Workload& workload, std::uint64_t seed, std::int64_t sample,
                        std::int64_t most, const RoutingSimulator::Observer& draw) {
  if (const auto& trace = workload.load.trace) {
    const std::int64_t tokens = plan.studies.front().study.tokens;
    const std::int64_t windows = trace_windows(*trace, tokens);
    if (sample >= windows) {
      throw UsageError("--sample",
                       fmt::format("{}: {} holds {} steps of {} tokens", sample, trace->path, windows, tokens),
                       fmt::format("0 to {}", windows - 1));
    }
    replay_window(plan, *trace, sample, most, draw);
    return fmt::format("recorded, step {} of {} in {}", sample, windows, trace->path);
  }
  std::int64_t left = most;
  for (std::size_t i = 0; i < plan.studies.size() && left > 0; ++i) {
    RoutingStudy& study = plan.studies[i].study;
    study.layers = static_cast<int>(std::min<std::int64_t>(study.layers, left));
    const auto layers = static_cast<std::size_t>(study.layers);
    study.placements.resize(layers, study.placements.front());
    if (!study.layer_popularity.empty()) study.layer_popularity.resize(layers, study.layer_popularity.front());
    if (study.fetch.touched.size() > 1) study.fetch.touched.resize(layers, study.fetch.touched.front());
    RoutingSimulator(study).run(seed + i * 1'000'003, static_cast<std::uint64_t>(sample), draw);
    left -= study.layers;
  }
  return fmt::format("drawn, sample {}", sample);
}

Written trace_gpu(TraceOptions options, Query query, const EventHardware& hardware, const DataFolders& folders) {
  const std::optional<MoeSystem> system = apply_system(options.events, folders);
  const GpuMachine machine = read_gpu_machine(hardware.folder);
  const Cluster cluster = choose_cluster(options.events.cluster, machine.profile.name, folders);
  if (query.workload.phase == Phase::train) return trace_training(options, query, machine, cluster);
  EpOptions asked = ep_options_of(options.events, query.workload.load.seed);
  asked.every_rank = true;
  take_engine(folders, query, asked);
  if (system) {
    query.architecture = run_by(*system, query.architecture);
    asked.row_block = system->row_block;
  }
  EpPlan plan;
  try {
    const std::unique_ptr<Predictor> analytic = load_gpu_predictor(hardware.folder, folders.engines);
    plan = plan_ep(machine, cluster, query.architecture, query.deployment, query.workload, asked, analytic.get());
  } catch (const InputError& error) {
    blame_flag(error, options.query.model);
  }
  if (!plan.link && std::ranges::any_of(plan.offloaded, &OffloadedLayers::runs)) {
    throw UsageError("--host-link", "is missing: the profile does not say how fast the link to the host is",
                     "e.g. --host-link 55GB/s");
  }
  const auto most = parse_count(options.layers.empty() ? "2" : options.layers, "--layers", 1, 100'000);
  const auto sample = parse_count(options.sample.empty() ? "0" : options.sample, "--sample", 0, 1'000'000);
  TraceWriter writer(plan.deployment.ep, {{MoeEvents::kCompute, "compute"},
                                          {MoeEvents::kDispatch, "dispatch"},
                                          {MoeEvents::kCombine, "combine"},
                                          {MoeEvents::kFetch, "fetch experts"},
                                          {MoeEvents::kHost, "host"}});
  Written written;
  const double prepared = plan.around.prepared_s;
  const double launch = plan.around.launched_s / static_cast<double>(plan.study_of.size());
  if (prepared > 0) writer.add_host(MoeEvents::kHost, "prepare the step", 0, prepared);
  written.seconds = prepared;
  std::int64_t layer = 0;
  // The host runs ahead, but no layer ends before its launches have.
  const auto draw = [&](const EventGraph& graph, const EventTimes& times) {
    const double launches = prepared + static_cast<double>(layer) * launch;
    if (launch > 0) {
      writer.add_host(MoeEvents::kHost, fmt::format("launch layer {}", layer), launches, launches + launch);
    }
    const double start = std::max(written.seconds, launches + std::max(0.0, launch - times.makespan_s));
    writer.add(graph, times, start, fmt::format("layer {} ", layer));
    refuse_large(writer.events());
    written.seconds = start + times.makespan_s;
    ++layer;
  };
  try {
    written.routing = draw_layers(plan, query.workload, asked.seed, sample, most, draw);
  } catch (const InputError& error) {
    blame_flag(error, options.query.model);
  }
  written.notes = plan.notes;
  if (launch > 0) {
    written.notes.push_back(fmt::format("the host's launches are drawn evenly over {} layers with experts: {} in all",
                                        plan.study_of.size(), format_seconds(Seconds(plan.around.launched_s))));
  }
  if (plan.around.outside_s > 0) {
    written.notes.push_back(fmt::format("not drawn: {} of the step outside of layers with experts (dense layers, head)",
                                        format_seconds(Seconds(plan.around.outside_s))));
  }
  if (!plan.around.missing.empty()) written.notes.push_back("MoE layers alone: " + plan.around.missing);
  written.text = writer.finish(fmt::format("moecast: layers of {} on {} ranks of {}, {}", query.architecture.name,
                                           plan.deployment.ep, cluster.name, to_string(plan.method)));
  written.events = writer.events();
  return written;
}

Written trace_cpu(const TraceOptions& options, Query query, const DataFolders& folders) {
  if (query.deployment.offload) {
    throw UsageError("--offload", "of a CPU is of the analytic engine, a trace is of the event engine", "leave it out");
  }
  for (const auto& [typed, flag] : {std::pair(&options.layers, "--layers"), std::pair(&options.sample, "--sample")}) {
    if (typed->empty()) continue;
    throw UsageError(flag, "is of GPUs: of a CPU all layers are drawn, with the rows that are expected",
                     "leave it out");
  }
  const HardwareChoice hardware = choose_hardware(options.query.hw, folders);
  refuse_backend_typo(options.query.backend, hardware);
  fill_in_assumed(query, hardware);
  const StepEvents step = step_events(hardware.folder, query.architecture, query.deployment, query.workload);
  TraceWriter writer(1, {{0, "compute"}});
  writer.add(step.graph, step.times, 0, "");
  Written written;
  written.seconds = step.times.makespan_s;
  written.routing = "expected rows";
  const auto predicted =
      Predictor::load(hardware.folder)->predict(query.architecture, query.deployment, query.workload).latency;
  if (predicted) {
    written.notes.push_back(fmt::format(
        "the trace shows the kernels one by one, {}; moecast predict says {} of the step: it adds what whole executed "
        "steps took beyond their kernels, which is in no kernel's slice",
        format_seconds(Seconds(written.seconds)), format_seconds(*predicted)));
  }
  written.text = writer.finish("moecast: one step of " + query.architecture.name);
  written.events = writer.events();
  return written;
}

int run_trace(const TraceOptions& options) {
  const Format format = parse_format(options.query.format);
  if (options.out.empty()) throw UsageError("-o", "is missing", "write e.g. -o run.perfetto.json");
  const DataFolders folders = find_data_folders(options.query.data);
  const EventHardware hardware = event_hardware(options.query, folders);
  std::vector<Query> queries = make_queries(with_usual_load(options.query, hardware.gpu), folders, hardware.threads);
  if (queries.size() != 1) {
    throw UsageError("", fmt::format("trace draws one run, these ranges make {}", queries.size()),
                     "moecast predict takes ranges");
  }
  const Written written = hardware.gpu ? trace_gpu(options, queries.front(), hardware, folders)
                                       : trace_cpu(options, queries.front(), folders);
  write_file_atomically(options.out, written.text);
  for (const std::string& text : written.notes) note("note: " + text);
  if (format == Format::table || format == Format::md) {
    const std::string routing = written.routing.empty() ? "" : "; routing: " + written.routing;
    write_stdout(fmt::format("{}: {} events, {} simulated{}; open it at https://ui.perfetto.dev\n", options.out,
                             written.events, format_seconds(Seconds(written.seconds)), routing));
    return 0;
  }
  const Json record{{"file", options.out},
                    {"events", written.events},
                    {"simulated_s", written.seconds},
                    {"routing", written.routing.empty() ? Json() : Json(written.routing)}};
  write_stdout(render_records({record}, format, true));
  return 0;
}

}  // namespace

void add_trace_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<TraceOptions>();
  const Command command = app.add_subcommand("trace", "Write a simulated step as a file that Perfetto opens");
  command.add_option("-o,--out", options->out, "File to write, e.g. run.perfetto.json").type_name("FILE");
  add_text_option(command, "--layers", options->layers, "N", "MoE layers that are drawn, of GPUs (default 2)");
  add_text_option(command, "--sample", options->sample, "N",
                  "Which sampled routing, or which step of a recorded one (default 0, the first)");
  add_query_options(command, options->query);
  add_event_options(command, options->events, false);
  command.footer(
      "A process a rank, a track a stream and a link, arrows from dispatch to experts to combine, counters of link and "
      "memory bandwidth.\n\n"
      "Examples:\n"
      "  moecast trace --model deepseek-v3 --hw h200-sxm --ep 16 --batch 2048 -o run.perfetto.json\n"
      "  moecast trace --model mixtral-8x7b --hw h100-sxm --ep 8 --batch 64 --chunks 2 --load zipf:1.2 -o skew.json\n"
      "  moecast trace --model olmoe-1b-7b --hw intel-xeon-processor-2cpu --batch 4 -o step.json\n"
      "  moecast trace --model olmoe-1b-7b --hw h100-sxm --ep 16 --phase train --batch 2 -o train.json\n");
  command.callback([options, &line] { line.run = [options] { return run_trace(*options); }; });
}

}  // namespace moecast
