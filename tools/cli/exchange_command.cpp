#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"
#include "profiler/mpi/plan.h"
#include "sim/event/engine.h"
#include "sim/event/exchange.h"
#include "sim/event/library_exchange.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/event_options.h"
#include "tools/cli/output.h"

namespace moecast {
namespace {

struct ExchangeOptions {
  std::string cluster, hw, ranks, bytes, matrix, exchange, operation = "all-to-all", round, flows, background;
  std::vector<std::string> slow_links;
  std::string data;
  std::string format = "table";
};

/// One way to carry something out.
struct Way {
  std::string operation;
  std::string exchange;
  ExchangeRounds rounds;
  RoundsCost cost;
  double events_s = 0;
  bool contended = false;
  double start_s = 0;  ///< of all rounds
  std::string_view start_origin = "none";
  std::optional<LibraryCost> library;
};

/// What is asked about, and what is known of it.
struct Wires {
  Topology topology;
  std::optional<KernelCalibration> kernels;  ///< of the device
};

/// A list of lists, or what `moecast routing --format json` prints.
ByteMatrix read_matrix(const std::string& path, int ranks) {
  const Json json = read_json_file(path);
  const JsonView view(json, path);
  return parse_byte_matrix(view.has("dispatch_bytes") ? view.at("dispatch_bytes") : view, ranks);
}

std::vector<Way> ways_of(const ExchangeOptions& options, int ranks, int per_node) {
  if (!options.matrix.empty() && (!options.bytes.empty() || options.operation != "all-to-all")) {
    throw UsageError("--matrix", "says the bytes of an all-to-all", "leave out --bytes and --operation");
  }
  if (options.matrix.empty() && options.bytes.empty())
    throw UsageError("--bytes", "is missing", "write e.g. --bytes 8MB");
  const double bytes = options.bytes.empty() ? 0 : parse_bytes(options.bytes, "--bytes").value();
  std::vector<Way> ways;
  const auto add = [&](std::string exchange, ExchangeRounds rounds) {
    ways.push_back({options.operation, std::move(exchange), std::move(rounds), {}, 0, false, 0, "none", {}});
  };
  const std::vector<double> blocks(static_cast<std::size_t>(ranks), bytes / ranks);
  if (options.operation == "all-to-all") {
    const ByteMatrix matrix =
        options.matrix.empty() ? ByteMatrix::uniform(ranks, bytes) : read_matrix(options.matrix, ranks);
    for (const auto algorithm : {ExchangeAlgorithm::direct, ExchangeAlgorithm::pairwise, ExchangeAlgorithm::ring,
                                 ExchangeAlgorithm::hierarchical, ExchangeAlgorithm::all_gather}) {
      if (!options.exchange.empty() && options.exchange != to_string(algorithm)) continue;
      // Who wants what of a block is not known: all of it goes to everybody.
      std::vector<double> whole;
      for (int rank = 0; rank < ranks; ++rank) whole.push_back(matrix.egress(rank));
      add(std::string(to_string(algorithm)), algorithm == ExchangeAlgorithm::all_gather
                                                 ? all_gather_rounds(whole)
                                                 : all_to_all_rounds(algorithm, matrix, per_node));
    }
    if (ways.empty()) {
      throw UsageError("--exchange", fmt::format("\"{}\" is not known", options.exchange),
                       "write direct, pairwise, ring, hierarchical or all-gather");
    }
    return ways;
  }
  if (!options.exchange.empty()) {
    throw UsageError("--exchange", "is of an all-to-all", "leave it out, or --operation all-to-all");
  }
  ExchangeRound weights;
  for (int to = 1; to < ranks; ++to) weights.push_back({0, to, bytes});
  if (options.operation == "all-gather") {
    add("ring", all_gather_rounds(blocks));
  } else if (options.operation == "reduce-scatter") {
    add("ring", reduce_scatter_rounds(blocks));
  } else if (options.operation == "all-reduce") {
    add("ring", all_reduce_rounds(ranks, bytes));
  } else if (options.operation == "send") {
    if (ranks < 2) throw UsageError("--ranks", "one rank sends to nobody", "at least 2");
    add("direct", {ExchangeRound{{0, ranks - 1, bytes}}});
  } else if (options.operation == "weights") {
    add("direct", {weights});
  } else if (options.operation == "parameter-server") {
    if (ranks < 2) throw UsageError("--ranks", "a server needs a worker", "at least 2");
    add("direct", parameter_server_rounds(ranks, 0, bytes));
  } else {
    const std::vector<std::string_view> known{"all-to-all", "all-gather", "reduce-scatter",  "all-reduce",
                                              "send",       "weights",    "parameter-server"};
    const auto near = nearest_name(options.operation, known);
    throw UsageError(
        "--operation", fmt::format("\"{}\" is not known", options.operation),
        near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("write one of: {}", fmt::join(known, ", ")));
  }
  return ways;
}

Wires wires_of(const ExchangeOptions& options, const EpOptions& slow) {
  const DataFolders folders = find_data_folders(options.data);
  if (options.cluster.empty() && options.hw.empty()) {
    throw UsageError("--cluster", "is missing", "moecast list clusters shows some; or --hw NAME");
  }
  const Cluster cluster = choose_cluster(options.cluster, options.hw, folders);
  const std::string device = options.hw.empty() ? cluster.device : options.hw;
  std::optional<Profile> profile;
  std::optional<KernelCalibration> kernels;
  if (!device.empty()) {
    const std::string folder = profile_folder(folders, device);
    profile = read_profile(folder);
    if (std::filesystem::exists(std::filesystem::path(folder) / kKernelCalibrationFile)) {
      kernels = read_kernel_calibration(folder, profile->name);
    }
  }
  const auto most = static_cast<std::int64_t>(cluster.most_nodes) * cluster.devices_per_node;
  if (options.ranks.empty()) throw UsageError("--ranks", "is missing", fmt::format("1 to {}", most));
  Topology topology(cluster,
                    static_cast<int>(parse_count(options.ranks, "--ranks", 1, std::min<std::int64_t>(most, 4096))),
                    profile ? &*profile : nullptr);
  for (const auto& [link, factor] : slow.slow_links) topology.scale_link(link, factor);
  return {std::move(topology), std::move(kernels)};
}

/// Starts of a way's rounds: as given, else as the cluster's file says, else assumed.
std::vector<double> starts_of(const Topology& topology, std::optional<double> given, Way& way) {
  const int per_node = topology.ranks_per_node();
  if (way.rounds.empty()) return {};
  if (given) {
    way.start_origin = "given";
    way.start_s = *given * static_cast<double>(way.rounds.size());
    return std::vector<double>(way.rounds.size(), *given);
  }
  const MessageStart inside = topology.message_start(false);
  const MessageStart across = topology.message_start(true);
  std::vector<double> starts = round_starts(way.rounds, per_node, inside.seconds, across.seconds);
  const bool any_across = way.cost.between_nodes > 0;
  const bool any_inside = std::ranges::any_of(round_starts(way.rounds, per_node, 1, 0), [](double s) { return s > 0; });
  way.start_origin = to_string(!any_across  ? inside.origin
                               : any_inside ? weakest(inside.origin, across.origin)
                                            : across.origin);
  way.start_s = std::accumulate(starts.begin(), starts.end(), 0.0);
  return starts;
}

void simulate_way(const Topology& topology, FlowModel model, std::optional<double> round_s, double background,
                  Way& way) {
  EventGraph graph;
  NetworkPorts ports(graph, topology);
  way.cost = cost_of_rounds(ports, way.rounds, topology.ranks_per_node(), 0);
  const std::vector<double> starts = starts_of(topology, round_s, way);
  way.cost.seconds = way.start_s + way.cost.fullest_s / (1 - background);  // others take their share of every link
  add_rounds(graph, ports, way.rounds, TaskKind::collective, 0, starts, 1, model, {});
  ports.leave_to_others(graph, background);
  const EventTimes times = simulate(graph);
  way.events_s = times.makespan_s;
  way.contended = times.contended;
}

/// A library carries an all-to-all out in its own way, which is nearest to the direct one.
std::optional<LibraryCost> library_of(const Wires& wires, const ExchangeOptions& options, const Way& way) {
  const bool own = way.operation != "all-to-all" || way.exchange == "direct";
  if (!wires.kernels || !own || options.bytes.empty()) return std::nullopt;
  return library_cost(*wires.kernels, wires.topology, way.operation, parse_bytes(options.bytes, "--bytes").value());
}

Json library_json(const Way& way) {
  if (!way.library) return nullptr;
  const LibraryCost& library = *way.library;
  return {{"kernel", library.kernel},           {"latency_s", library.seconds},
          {"latency_low_s", library.low_s},     {"latency_high_s", library.high_s},
          {"start_s", library.start_s},         {"efficiency_ratio", way.cost.fullest_s / library.seconds},
          {"origin", to_string(library.origin)}};
}

Json way_json(const Topology& topology, const Way& way) {
  Json json{{"operation", way.operation},
            {"exchange", way.exchange},
            {"ranks", topology.ranks()},
            {"rounds", way.rounds.size()},
            {"latency_s", way.events_s},
            {"closed_form_s", way.cost.seconds},
            {"starts_s", way.start_s},
            {"starts_origin", way.start_origin},
            {"bandwidth_origin", to_string(topology.origin())},
            {"library", library_json(way)},
            {"between_nodes_bytes", way.cost.between_nodes},
            {"busiest_link", Json()},
            {"busiest_link_bytes", way.cost.busiest_bytes},
            {"contended", way.contended}};
  if (way.cost.busiest_link >= 0) {
    json["busiest_link"] = topology.links()[static_cast<std::size_t>(way.cost.busiest_link)].name;
  }
  return json;
}

std::string starts_text(const Way& way) {
  if (way.rounds.empty()) return "–";
  return fmt::format("{} {}", format_seconds(Seconds(way.start_s)), way.start_origin);
}

std::string library_text(const Way& way) {
  if (!way.library) return "–";
  return fmt::format("{} {}", format_seconds(Seconds(way.library->seconds)), to_string(way.library->origin));
}

int run_exchange(const ExchangeOptions& options) {
  const Format format = parse_format(options.format);
  EventFlags flags;
  flags.slow_links = options.slow_links;
  flags.background = options.background;
  flags.flows = options.flows;
  const EpOptions others = ep_options_of(flags, 1);
  const Wires wires = wires_of(options, others);
  const Topology& topology = wires.topology;
  std::optional<double> round_s;
  if (!options.round.empty()) round_s = parse_seconds(options.round, "--round-start").value();
  if (others.flows == FlowModel::exact && topology.ranks() > kMostExactRanks) {
    throw UsageError("--flows", fmt::format("exact: of up to {} ranks", kMostExactRanks), "--flows port");
  }
  std::vector<Way> ways = ways_of(options, topology.ranks(), topology.ranks_per_node());
  for (Way& way : ways) {
    simulate_way(topology, others.flows, round_s, others.background_share, way);
    way.library = library_of(wires, options, way);
  }
  for (const std::string& text : topology.assumed()) note("note: " + text);
  if (format == Format::table || format == Format::md) {
    Table table{{"exchange", "rounds", "latency", "closed form", "starts", "between nodes", "busiest link", "carries",
                 "library"},
                {}};
    for (const Way& way : ways) {
      const Json json = way_json(topology, way);
      table.rows.push_back({way.exchange, std::to_string(way.rounds.size()), format_seconds(Seconds(way.events_s)),
                            format_seconds(Seconds(way.cost.seconds)), starts_text(way),
                            format_bytes(Bytes(way.cost.between_nodes)),
                            way.cost.busiest_link < 0 ? "–" : json.at("busiest_link").get<std::string>(),
                            format_bytes(Bytes(way.cost.busiest_bytes)), library_text(way)});
    }
    std::string text = render_table(table, format);
    for (const Way& way : ways) {
      if (way.library) text += fmt::format("\nlibrary of {}: {}\n", way.exchange, way.library->kernel);
    }
    write_stdout(text);
    return 0;
  }
  std::vector<Json> records;
  for (const Way& way : ways) records.push_back(way_json(topology, way));
  write_stdout(render_records(records, format, records.size() == 1));
  return 0;
}

}  // namespace

void add_exchange_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<ExchangeOptions>();
  const Command command = app.add_subcommand(
      "exchange", "Times of an all-to-all or a collective over the links of a cluster, by algorithm");
  add_text_option(command, "--cluster", options->cluster, "NAME|FILE", "How ranks are wired (moecast list clusters)");
  add_text_option(command, "--hw", options->hw, "NAME", "Device, for bandwidths that the cluster leaves open");
  add_text_option(command, "--ranks", options->ranks, "N", "Ranks, filling nodes in order; at most 4096");
  add_text_option(
      command, "--operation", options->operation, "NAME",
      "all-to-all (default), all-gather, reduce-scatter, all-reduce, send (first to last rank), weights (rank 0 "
      "to all), parameter-server (all to rank 0 and back)");
  add_text_option(
      command, "--bytes", options->bytes, "BYTES",
      "A rank's whole buffer: input of all-to-all, reduce-scatter, all-reduce; output of all-gather; of one "
      "message otherwise");
  add_text_option(command, "--matrix", options->matrix, "FILE",
                  "Instead: bytes from rank to rank, JSON [[...], ...] or what moecast routing --format json prints");
  add_text_option(command, "--exchange", options->exchange, "NAME",
                  "direct, pairwise, ring, hierarchical, all-gather (default: each of them)");
  add_text_option(command, "--round-start", options->round, "TIME",
                  "Before bytes of a round flow, e.g. 5us (default: the cluster's latency of a message, else assumed)");
  add_text_option(command, "--flows", options->flows, "MODEL",
                  "port (default: links carry sums), exact (every pair takes its share of its route; up to 32 ranks)");
  add_text_option(command, "--background", options->background, "SHARE",
                  "Of every link's bandwidth that other traffic takes, 0 (default) to 0.99");
  command
      .add_option("--slow-link", options->slow_links,
                  "A link with FACTOR of its bandwidth (\"nic 3 out:0.5\"); may be repeated")
      .type_name("LINK:FACTOR");
  add_text_option(command, "--data", options->data, "FOLDER", "Data folder of moecast (hwprofiles)");
  add_text_option(command, "--format", options->format, "FORMAT", "table (default), md, csv, json, jsonl");
  command.footer(
      "Links at the bandwidth that the cluster's file or the datasheet says: what the wires allow. library: what NCCL "
      "makes of\nthem, by the law calibrated for this operation, message size and number of ranks (– where nothing was "
      "measured);\nstarts and library name their origin.\n\n"
      "Examples:\n"
      "  moecast exchange --cluster h100-hgx-rail --ranks 16 --bytes 64MB\n"
      "  moecast exchange --cluster h100-hgx-fat-tree-2to1 --ranks 32 --matrix bytes.json --exchange pairwise "
      "--round-start 5us\n"
      "  moecast exchange --cluster ethernet-switch-8 --ranks 8 --operation parameter-server --bytes 100MB\n"
      "  moecast exchange --cluster h200-hgx-rail --ranks 8 --operation all-reduce --bytes 16MB --slow-link \"rank 2 "
      "port in:0.5\"\n");
  command.callback([options, &line] { line.run = [options] { return run_exchange(*options); }; });
}

}  // namespace moecast
