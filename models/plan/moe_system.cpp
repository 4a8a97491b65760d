#include "models/plan/moe_system.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <variant>
#include <vector>

#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"

namespace moecast {
namespace {

constexpr std::int64_t kSystemSchema = 1;
constexpr std::int64_t kMostSystemChunks = 64;
constexpr std::int64_t kMostShadowed = 65536;
constexpr std::int64_t kMostRowBlock = 65536;

CapacitySpec parse_system_capacity(const JsonView& view) {
  view.refuse_unknown_keys({"factor", "of", "minimum", "overflow", "pad"});
  CapacitySpec capacity;
  capacity.eval_factor = capacity.train_factor = view.at("factor").as_number(1e-6, 1e6);
  const std::string of = view.at("of").as_string();
  if (of != "top-k" && of != "tokens") {
    throw InputError(view.at("of").where(), "\"" + of + "\" is not known",
                     "write top-k (F T k / E) or tokens (F T / E)");
  }
  capacity.factor_of_top_k = of == "top-k";
  capacity.minimum = view.at("minimum").as_int(0, 1 << 20);
  const std::string overflow = view.at("overflow").as_string();
  if (overflow != "drop" && overflow != "next-best") {
    throw InputError(view.at("overflow").where(), "\"" + overflow + "\" is not known", "write drop or next-best");
  }
  if (overflow == "next-best") capacity.overflow = Overflow::next_best;
  capacity.pad = view.at("pad").as_bool();
  return capacity;
}

}  // namespace

MoeSystem parse_moe_system(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  const JsonView root(json, where);
  root.refuse_unknown_keys({"schema_version", "name", "dispatch", "exchange", "placement", "chunks", "shadowed_experts",
                            "row_block", "capacity", "source"});
  static_cast<void>(root.at("schema_version").as_int(kSystemSchema, kSystemSchema));
  MoeSystem system;
  system.name = root.at("name").as_string();
  system.source = root.at("source").as_string();
  system.dispatch = root.find_string("dispatch").value_or("");
  system.exchange = root.find_string("exchange").value_or("");
  system.placement = root.find_string("placement").value_or("");
  if (root.has("chunks")) system.chunks = static_cast<int>(root.at("chunks").as_int(1, kMostSystemChunks));
  if (root.has("shadowed_experts")) {
    system.shadowed_experts = static_cast<int>(root.at("shadowed_experts").as_int(0, kMostShadowed));
  }
  if (root.has("row_block")) system.row_block = root.at("row_block").as_int(1, kMostRowBlock);
  if (root.has("capacity")) system.capacity = parse_system_capacity(root.at("capacity"));
  return system;
}

MoeSystem read_moe_system(const std::string& folder, const std::string& name) {
  const std::vector<std::string> known = zoo_names(folder);
  const bool found = std::ranges::find(known, name) != known.end();
  if (!found) {
    const auto near = nearest_name(name, {known.begin(), known.end()});
    throw InputError(name, "is no system", near ? "did you mean \"" + *near + "\"?" : "moecast list systems");
  }
  const std::string path = (std::filesystem::path(folder) / (name + ".json")).string();
  return parse_moe_system(read_text_file(path), path);
}

Architecture run_by(const MoeSystem& system, Architecture architecture) {
  if (!system.capacity) return architecture;
  for (std::vector<Layer>* stack : {&architecture.encoder, &architecture.decoder}) {
    for (Layer& layer : *stack) {
      for (Block& block : layer.blocks) {
        auto* moe = std::get_if<MoeBlock>(&block);
        if (moe == nullptr || moe->capacity.limited() || moe->router.kind == RouterKind::expert_choice) continue;
        moe->capacity = *system.capacity;
      }
    }
  }
  return architecture;
}

}  // namespace moecast
