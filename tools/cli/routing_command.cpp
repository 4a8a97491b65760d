#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/quantity_text.h"
#include "models/routing/trace_writer.h"
#include "tools/cli/command.h"
#include "tools/cli/routing_options.h"
#include "tools/cli/routing_report.h"

namespace moecast {
namespace {

void write_trace(const RoutingOptions& options, const RoutingRequest& request) {
  TraceRecipe recipe;
  recipe.policy = request.question.policy;
  recipe.popularity = request.question.popularity;
  recipe.tokens = request.question.tokens;
  recipe.seed = request.question.seed;
  if (!options.layers.empty()) recipe.layers = static_cast<int>(parse_count(options.layers, "--layers", 1, 65'536));
  if (!options.steps.empty()) recipe.steps = parse_count(options.steps, "--steps", 1, 1'000'000);
  if (!options.correlation.empty())
    recipe.orders.correlation = parse_number(options.correlation, "--correlation", 0, 1);
  if (!options.drift.empty()) recipe.orders.drift = parse_number(options.drift, "--drift", 0, 1);
  write_file_atomically(options.trace, routing_trace_text(recipe));
  note(fmt::format("note: {}: {} steps of {} layers and {} tokens", options.trace, recipe.steps, recipe.layers,
                   recipe.tokens));
}

/// What is shown when nobody says: the steps where there are some.
std::string shown(const RoutingOptions& options, const RoutingResult& result, Format format) {
  if (!options.show.empty()) return options.show;
  if (!result.steps.empty()) return "steps";
  return format == Format::table || format == Format::md ? "summary" : "experts";
}

int run_routing(const RoutingOptions& options) try {
  const Format format = parse_format(options.format);
  RoutingResult result{routing_request(options), {}, {}};
  const std::optional<StepsRequest> steps = steps_request(options, result.request);
  if (options.trace.empty() && (!options.layers.empty() || !options.correlation.empty())) {
    throw UsageError(options.layers.empty() ? "--correlation" : "--layers", "is of a trace that is written",
                     "--write-trace FILE");
  }
  result.answer = answer_routing(result.request.question);
  if (steps) {
    BalancingSimulation simulation(steps->policy, steps->scenario);
    for (std::int64_t step = 0; step < steps->steps; ++step) result.steps.push_back(simulation.next());
  }
  const std::string what = shown(options, result, format);
  std::string text;
  if (format == Format::json) {
    text = render_records({routing_json(result)}, format, true);
  } else if (format == Format::table || format == Format::md) {
    text = render_table(what == "summary" ? routing_summary(result) : routing_table(result, what), format);
  } else if (what == "summary") {
    Json json = routing_json(result);
    for (const char* array : {"dispatch_tokens", "dispatch_bytes", "combine_bytes", "placement", "steps"})
      json.erase(array);
    text = render_records({json}, format, true);
  } else {
    text = render_records(routing_records(result, what), format, false);
  }
  if (!options.trace.empty()) write_trace(options, result.request);
  for (const std::string& said : result.request.notes) note("note: " + said);
  if (result.request.samples_assumed) {
    note(fmt::format("note: no closed form here: mean of {} sampled routings", result.request.question.samples));
  }
  write_stdout(text);
  return 0;
} catch (const InputError& error) {
  // What flags contradict each other about is a matter of the command line, what a file says is not.
  for (const char* flags : {"routing", "balancing", "placement", "traffic", "capacity", "load", "trace", "dtype", ""}) {
    if (error.where() == flags) throw UsageError("", error.what(), error.hint());
  }
  throw;
}

}  // namespace

void add_routing_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<RoutingOptions>();
  const Command command =
      app.add_subcommand("routing", "Rows of experts and ranks, bytes between ranks, balancing over steps");
  add_routing_options(command, *options);
  command.footer(
      "Rows are (token, slot) pairs; one layer, no machine. Loads are what the router would choose; capacity, "
      "placement "
      "and feedback\nsay what becomes of it.\n\n"
      "Examples:\n"
      "  moecast routing --experts 256 --top-k 8 --tokens 8192 --ranks 64 --load log-normal:1.05 --hidden 7168 "
      "--dispatch-dtype fp8_block --deduplicate node\n"
      "  moecast routing --experts 64 --top-k 2 --tokens 4096 --ranks 8 --load zipf:1 --capacity-factor 1.25 --samples "
      "200 "
      "--show ranks\n"
      "  moecast routing --experts 64 --top-k 6 --tokens 4096 --ranks 8 --load trace:routing.csv.gz --placement "
      "balanced "
      "--hidden 2048 --width 1408 --link 50GB/s\n"
      "  moecast routing --experts 256 --top-k 8 --tokens 4096 --ranks 8 --load zipf:0.8 --steps 500 --bias-step 0.001 "
      "--format csv\n"
      "  moecast routing --experts 64 --top-k 2 --tokens 4096 --load zipf:1 --steps 300 --capacity-schedule 2x100,1.25 "
      "--overflow queue\n"
      "  moecast routing --experts 64 --top-k 6 --tokens 512 --load zipf:1 --steps 20 --layers 26 --correlation 0.3 "
      "--drift 0.05 --write-trace routing.csv.gz\n");
  command.callback([options, &line] { line.run = [options] { return run_routing(*options); }; });
}

}  // namespace moecast
