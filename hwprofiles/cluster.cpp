#include "hwprofiles/cluster.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <numeric>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

struct NamedKind {
  FabricKind kind;
  std::string_view name;
};
constexpr std::array<NamedKind, 7> kKinds{{{FabricKind::none, "none"},
                                           {FabricKind::one_switch, "switch"},
                                           {FabricKind::pcie_tree, "pcie_tree"},
                                           {FabricKind::fat_tree, "fat_tree"},
                                           {FabricKind::rail_optimised, "rail_optimised"},
                                           {FabricKind::torus, "torus"},
                                           {FabricKind::dragonfly, "dragonfly"}}};

constexpr int kMostDevices = 1 << 20;

std::optional<HardwareQuantity> find_positive(const JsonView& view, const char* key, const char* unit) {
  if (!view.has(key)) return std::nullopt;
  HardwareQuantity quantity = parse_quantity(view.at(key));
  if (quantity.unit != unit) {
    throw InputError(view.at(key).where(), "is in " + quantity.unit, std::string("write it in ") + unit);
  }
  if (!(quantity.value > 0)) throw InputError(view.at(key).where(), "must be above zero", "null where it is unknown");
  return quantity;
}

Fabric parse_fabric(const JsonView& view, bool inside) {
  view.refuse_unknown_keys({"kind", "bandwidth", "latency", "devices_per_switch", "nics_per_node", "nodes_per_switch",
                            "oversubscription", "dimensions"});
  Fabric fabric;
  const std::string kind = view.at("kind").as_string();
  const auto* found = std::find_if(kKinds.begin(), kKinds.end(), [&](const NamedKind& k) { return k.name == kind; });
  const bool known = found != kKinds.end();
  const bool fits = known && (found->kind == FabricKind::none || found->kind == FabricKind::one_switch ||
                              (inside ? found->kind == FabricKind::pcie_tree : found->kind != FabricKind::pcie_tree));
  if (!fits) {
    throw InputError(
        view.at("kind").where(), "\"" + kind + "\" joins no " + (inside ? "devices" : "nodes"),
        inside ? "none, switch or pcie_tree" : "none, switch, fat_tree, rail_optimised, torus or dragonfly");
  }
  fabric.kind = found->kind;
  fabric.bandwidth = find_positive(view, "bandwidth", "B/s");
  fabric.latency = find_positive(view, "latency", "s");
  fabric.devices_per_switch = static_cast<int>(view.find_int("devices_per_switch", 1, kMostDevices).value_or(0));
  fabric.nics_per_node = static_cast<int>(view.find_int("nics_per_node", 1, kMostDevices).value_or(0));
  fabric.nodes_per_switch = static_cast<int>(view.find_int("nodes_per_switch", 1, kMostDevices).value_or(0));
  fabric.oversubscription = view.find_number("oversubscription", 1, 1e6).value_or(1);
  if (view.has("dimensions")) {
    const JsonView dimensions = view.at("dimensions");
    if (!dimensions.is_array() || dimensions.size() < 1 || dimensions.size() > 6) {
      throw InputError(dimensions.where(), "is no list of 1 to 6 sizes", "[4, 4, 4]");
    }
    for (std::size_t i = 0; i < dimensions.size(); ++i) {
      fabric.dimensions.push_back(static_cast<int>(dimensions.at(i).as_int(1, kMostDevices)));
    }
  }
  if ((fabric.kind == FabricKind::torus) != !fabric.dimensions.empty()) {
    throw InputError(view.where(), "a torus has dimensions, and nothing else has");
  }
  return fabric;
}

Json quantity_json(const std::optional<HardwareQuantity>& quantity) {
  if (!quantity) return nullptr;
  return {{"value", quantity->value},
          {"unit", quantity->unit},
          {"origin", to_string(quantity->origin)},
          {"source", quantity->source}};
}

Json fabric_json(const Fabric& fabric) {
  Json json{{"kind", to_string(fabric.kind)}};
  if (fabric.kind == FabricKind::none) return json;
  json["bandwidth"] = quantity_json(fabric.bandwidth);
  if (fabric.latency) json["latency"] = quantity_json(fabric.latency);
  if (fabric.devices_per_switch > 0) json["devices_per_switch"] = fabric.devices_per_switch;
  if (fabric.nics_per_node > 0) json["nics_per_node"] = fabric.nics_per_node;
  if (fabric.nodes_per_switch > 0) json["nodes_per_switch"] = fabric.nodes_per_switch;
  if (fabric.oversubscription != 1) json["oversubscription"] = fabric.oversubscription;
  if (!fabric.dimensions.empty()) json["dimensions"] = fabric.dimensions;
  return json;
}

}  // namespace

std::string_view to_string(FabricKind kind) {
  return std::find_if(kKinds.begin(), kKinds.end(), [&](const NamedKind& known) { return known.kind == kind; })->name;
}

Cluster parse_cluster_text(std::string_view text, const std::string& where) {
  const Json document = parse_json(text, where);
  const JsonView root(document, where);
  root.refuse_unknown_keys(
      {"schema_version", "name", "device", "devices_per_node", "most_nodes", "scale_up", "scale_out", "notes"});
  if (root.at("schema_version").as_int() != kClusterSchemaVersion) {
    throw InputError(root.at("schema_version").where(), "is not " + std::to_string(kClusterSchemaVersion),
                     "use the program that wrote the file");
  }
  Cluster cluster;
  cluster.name = root.at("name").as_string();
  cluster.device = root.find_string("device").value_or("");
  cluster.devices_per_node = static_cast<int>(root.at("devices_per_node").as_int(1, kMostDevices));
  cluster.most_nodes = static_cast<int>(root.at("most_nodes").as_int(1, kMostDevices));
  cluster.scale_up = parse_fabric(root.at("scale_up"), true);
  cluster.scale_out = parse_fabric(root.at("scale_out"), false);
  if (root.has("notes")) {
    for (std::size_t i = 0; i < root.at("notes").size(); ++i) {
      cluster.notes.push_back(root.at("notes").at(i).as_string());
    }
  }
  if (cluster.devices_per_node > 1 && cluster.scale_up.kind == FabricKind::none) {
    throw InputError(root.at("scale_up").where(), "joins nothing: the devices of a node cannot reach each other",
                     "switch or pcie_tree");
  }
  if (cluster.most_nodes > 1 && cluster.scale_out.kind == FabricKind::none) {
    throw InputError(root.at("scale_out").where(), "joins nothing: nodes cannot reach each other",
                     "name a fabric, or say most_nodes 1");
  }
  if (const int below = cluster.scale_up.devices_per_switch; below > 0 && cluster.devices_per_node % below != 0) {
    throw InputError(root.at("scale_up").where(),
                     fmt::format("{} devices a switch do not divide the {} of a node", below, cluster.devices_per_node),
                     "a switch lies in one node");
  }
  const Fabric& out = cluster.scale_out;
  if (out.nics_per_node > 0 && cluster.devices_per_node % out.nics_per_node != 0) {
    throw InputError(root.at("scale_out").where(), "its NICs do not divide the devices of a node");
  }
  if (out.kind == FabricKind::torus) {
    std::int64_t nodes = 1;
    for (const int size : out.dimensions) nodes = std::min<std::int64_t>(nodes * size, std::int64_t{1} << 40);
    if (nodes != cluster.most_nodes) {
      throw InputError(root.at("scale_out").where(),
                       fmt::format("its dimensions hold {} nodes, most_nodes is {}", nodes, cluster.most_nodes));
    }
  }
  return cluster;
}

Cluster read_cluster(const std::string& path) { return parse_cluster_text(read_text_file(path), path); }

std::string cluster_text(const Cluster& cluster) {
  return dump_json({{"schema_version", kClusterSchemaVersion},
                    {"name", cluster.name},
                    {"device", cluster.device},
                    {"devices_per_node", cluster.devices_per_node},
                    {"most_nodes", cluster.most_nodes},
                    {"scale_up", fabric_json(cluster.scale_up)},
                    {"scale_out", fabric_json(cluster.scale_out)},
                    {"notes", cluster.notes}});
}

}  // namespace moecast
