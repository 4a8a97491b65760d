#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "hwprofiles/cluster.h"
#include "models/architecture/accounting.h"
#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/plan/moe_system.h"
#include "profiler/cpu/gemm.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/output.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

struct ListOptions {
  std::string what;
  std::string format = "table";
  std::string data;
};

struct Listing {
  Table table;
  std::vector<Json> records;
  std::string when_empty;
};

std::vector<std::string> json_names(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code failed;
  for (const auto& item : fs::directory_iterator(folder, failed)) {
    if (item.path().extension() == ".json") names.push_back(item.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// The widest layer of experts, which is what a model's experts are called by.
const MoeBlock* largest_moe(const Architecture& model) {
  const MoeBlock* largest = nullptr;
  for (const auto* stack : {&model.encoder, &model.decoder}) {
    for (const Layer& layer : *stack) {
      for (const Block& block : layer.blocks) {
        const auto* moe = std::get_if<MoeBlock>(&block);
        if (moe != nullptr && (largest == nullptr || moe->expert_count() > largest->expert_count())) largest = moe;
      }
    }
  }
  return largest;
}

std::string billions(double parameters) {
  return parameters < 1e7 ? fmt::format("{:.3g} M", parameters / 1e6) : fmt::format("{:.4g} B", parameters / 1e9);
}

void add_model(const std::string& name, const Architecture& model, Listing& listing) {
  const ParameterCount count = count_parameters(model);
  const std::size_t layers = model.encoder.size() + model.decoder.size();
  const MoeBlock* moe = largest_moe(model);
  const std::int64_t experts = moe != nullptr ? moe->expert_count() : 0;
  const double top_k = moe != nullptr ? mean_top_k(moe->router) : 0;
  listing.table.rows.push_back({name, billions(count.total), billions(count.active), std::to_string(layers),
                                std::to_string(model.hidden), moe != nullptr ? std::to_string(experts) : "-",
                                moe != nullptr ? fmt::format("{:g}", top_k) : "-"});
  Json record{{"name", name},     {"total_parameters", count.total}, {"active_parameters", count.active},
              {"layers", layers}, {"hidden", model.hidden},          {"experts", nullptr},
              {"top_k", nullptr}};
  if (moe != nullptr) {
    record["experts"] = experts;
    record["top_k"] = top_k;
  }
  listing.records.push_back(std::move(record));
}

Listing list_models(const DataFolders& folders) {
  Listing listing{{{"model", "parameters", "active", "layers", "hidden", "experts", "top-k"}, {}},
                  {},
                  "no models in " + folders.zoo};
  for (const std::string& name : zoo_names(folders.zoo)) {
    try {
      add_model(name, load_zoo(folders.zoo, name), listing);
    } catch (const InputError& error) {  // one bad file hides no other
      warn(error.what());
      listing.table.rows.push_back({name, "-", "-", "-", "-", "-", "-"});
      listing.records.push_back(Json{{"name", name}});
    }
  }
  return listing;
}

Listing list_hardware(const DataFolders& folders) {
  Listing listing{{{"profile", "made", "folder"}, {}}, {}, "no profiles; moecast profile measures this machine"};
  for (const ProfileEntry& entry : find_profiles(folders)) {
    listing.table.rows.push_back({entry.name, entry.own ? "here" : "shipped", entry.folder});
    listing.records.push_back(Json{{"name", entry.name}, {"own", entry.own}, {"folder", entry.folder}});
  }
  return listing;
}

Listing list_backends() {
  Listing listing{{{"backend", "dtypes", "library"}, {}}, {}, "this build has no CPU backend"};
  for (const std::string& backend : gemm_backends()) {
    std::vector<std::string> dtypes;
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      if (gemm_supports(backend, dtype)) dtypes.emplace_back(to_string(dtype));
    }
    listing.table.rows.push_back({backend, fmt::format("{}", fmt::join(dtypes, ",")), gemm_library(backend)});
    listing.records.push_back(Json{{"name", backend}, {"dtypes", dtypes}, {"library", gemm_library(backend)}});
  }
  return listing;
}

Listing list_spaces(const DataFolders& folders) {
  Listing listing{{{"space", "family", "searched", "objectives"}, {}}, {}, "no search spaces in this data folder"};
  const fs::path folder = fs::path(folders.zoo).parent_path() / "spaces";
  for (const std::string& name : json_names(folder.string())) {
    const std::string path = (folder / (name + ".json")).string();
    const Json read = read_json_file(path);
    const JsonView space(read, path);
    const std::string family = space.at("family").as_string();
    const JsonView fields = space.at("fields");
    std::vector<std::string> searched;
    for (const std::string& field : fields.keys()) {
      if (fields.has(field) && fields.at(field).raw().is_structured()) searched.push_back(field);
    }
    std::vector<std::string> objectives;
    if (space.has("objectives")) {
      const JsonView list = space.at("objectives");
      for (std::size_t i = 0; i < list.size(); ++i) objectives.push_back(list.at(i).as_string());
    }
    listing.table.rows.push_back(
        {name, family, std::to_string(searched.size()) + " fields", fmt::format("{}", fmt::join(objectives, ","))});
    listing.records.push_back(Json{
        {"name", name}, {"family", family}, {"searched_fields", searched}, {"objectives", objectives}, {"file", path}});
  }
  return listing;
}

Listing list_clusters(const DataFolders& folders) {
  Listing listing{{{"cluster", "device", "devices a node", "nodes", "inside", "between"}, {}}, {}, "no clusters"};
  const std::string folder = (fs::path(folders.shipped) / "clusters").string();
  for (const std::string& name : json_names(folder)) {
    const Cluster cluster = read_cluster((fs::path(folder) / (name + ".json")).string());
    listing.table.rows.push_back({name, cluster.device.empty() ? "-" : cluster.device,
                                  std::to_string(cluster.devices_per_node), std::to_string(cluster.most_nodes),
                                  std::string(to_string(cluster.scale_up.kind)),
                                  std::string(to_string(cluster.scale_out.kind))});
    listing.records.push_back(Json{{"name", name},
                                   {"device", cluster.device},
                                   {"devices_per_node", cluster.devices_per_node},
                                   {"nodes", cluster.most_nodes},
                                   {"scale_up", to_string(cluster.scale_up.kind)},
                                   {"scale_out", to_string(cluster.scale_out.kind)}});
  }
  return listing;
}

Listing list_systems(const DataFolders& folders) {
  Listing listing{
      {{"system", "exchange", "placement", "chunks", "shadowed", "capacity", "row block"}, {}}, {}, "no systems"};
  for (const std::string& name : json_names(folders.systems)) {
    const MoeSystem system = read_moe_system(folders.systems, name);
    const std::string capacity = !system.capacity ? "none"
                                                  : fmt::format("{:g} of {}{}", *system.capacity->eval_factor,
                                                                system.capacity->factor_of_top_k ? "T k / E" : "T / E",
                                                                system.capacity->pad ? ", padded" : "");
    listing.table.rows.push_back({name, system.exchange.empty() ? "-" : system.exchange,
                                  system.placement.empty() ? "-" : system.placement, std::to_string(system.chunks),
                                  std::to_string(system.shadowed_experts), capacity, std::to_string(system.row_block)});
    listing.records.push_back(Json{{"name", name},
                                   {"exchange", system.exchange},
                                   {"placement", system.placement},
                                   {"chunks", system.chunks},
                                   {"shadowed_experts", system.shadowed_experts},
                                   {"capacity", system.capacity ? Json(capacity) : Json()},
                                   {"row_block", system.row_block},
                                   {"source", system.source}});
  }
  return listing;
}

Listing listing_of(const std::string& what, const DataFolders& folders) {
  if (what == "models") return list_models(folders);
  if (what == "hw") return list_hardware(folders);
  if (what == "backends") return list_backends();
  if (what == "spaces") return list_spaces(folders);
  if (what == "clusters") return list_clusters(folders);
  if (what == "systems") return list_systems(folders);
  const std::string hint = "write one of: models, hw, clusters, systems, backends, spaces";
  if (what.empty()) throw UsageError("list", "what to list is missing", hint);
  const auto near = nearest_name(what, {"models", "hw", "clusters", "systems", "backends", "spaces"});
  throw UsageError("list", fmt::format("\"{}\" cannot be listed", what),
                   near ? fmt::format("did you mean \"{}\"?", *near) : hint);
}

int run_list(const ListOptions& options) {
  const Format format = parse_format(options.format);
  const Listing listing = listing_of(options.what, find_data_folders(options.data));
  if (format == Format::table || format == Format::md) {
    if (listing.records.empty()) note(listing.when_empty);
    write_stdout(render_table(listing.table, format));
  } else {
    write_stdout(render_records(listing.records, format, false));
  }
  return 0;
}

}  // namespace

void add_list_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<ListOptions>();
  const Command command = app.add_subcommand(
      "list", "Show known models, hardware profiles, clusters, published systems, backends or search spaces");
  add_text_option(command, "what", options->what, "models|hw|clusters|systems|backends|spaces", "What to list");
  add_text_option(command, "--format", options->format, "table|md|csv|json|jsonl", "How to print it");
  add_text_option(command, "--data", options->data, "FOLDER", "Data folder of moecast (models/zoo, hwprofiles)");
  command.footer("Examples:\n  moecast list models\n  moecast list hw --format json\n");
  command.callback([options, &line] { line.run = [options] { return run_list(*options); }; });
}

}  // namespace moecast
