#include "models/plan/engine.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/framework.h"
#include "models/core/json.h"

namespace moecast {
namespace {

constexpr std::int64_t kSchemaVersion = 1;
constexpr std::size_t kMostSizes = 100'000;

struct HostField {
  std::string_view name;
  double EngineHost::* field;
  std::string_view unit = "s";
};
constexpr std::array<HostField, EngineHost::kCount> kHost{{{"layer_kernels_s", &EngineHost::layer_kernels_s},
                                                           {"prepare_s", &EngineHost::prepare_s},
                                                           {"eager_gap_s", &EngineHost::eager_gap_s},
                                                           {"token_bytes", &EngineHost::token_bytes, "B"},
                                                           {"piece_launch_s", &EngineHost::piece_launch_s},
                                                           {"eager_launch_s", &EngineHost::eager_launch_s},
                                                           {"wake_s", &EngineHost::wake_s},
                                                           {"graph_step_s", &EngineHost::graph_step_s},
                                                           {"collective_launch_s", &EngineHost::collective_launch_s}}};

struct ServiceField {
  std::string_view name;
  double EngineService::* field;
  std::string_view unit = "s";
};
constexpr std::array<ServiceField, 7> kService{{{"kernel_factor", &EngineService::kernel_factor, "1"},
                                                {"layer_s", &EngineService::layer_s},
                                                {"request_s", &EngineService::request_s},
                                                {"step_s", &EngineService::step_s},
                                                {"stall_share", &EngineService::stall_share, "1"},
                                                {"prefill_factor", &EngineService::prefill_factor, "1"},
                                                {"first_token_s", &EngineService::first_token_s}}};

/// [first, last, step] of captured sizes.
void add_sizes(const JsonView& range, std::vector<double>& sizes) {
  if (range.size() != 3) throw InputError(range.where(), "is not [first, last, step]");
  const std::int64_t first = range.at(std::size_t{0}).as_int(1, 1 << 20);
  const std::int64_t last = range.at(std::size_t{1}).as_int(first, 1 << 20);
  const std::int64_t step = range.at(std::size_t{2}).as_int(1, 1 << 20);
  for (std::int64_t size = first; size <= last; size += step) {
    if (sizes.size() >= kMostSizes) throw InputError(range.where(), "makes too many sizes");
    if (!sizes.empty() && static_cast<double>(size) <= sizes.back()) {
      throw InputError(range.where(), "does not go up", "captured sizes ascend");
    }
    sizes.push_back(static_cast<double>(size));
  }
}

double parse_constant(const JsonView& constant, std::string_view unit, double most) {
  if (const std::string said = constant.at("unit").as_string(); said != unit) {
    throw InputError(constant.at("unit").where(), "\"" + said + "\" is not the unit of this constant",
                     "write it in \"" + std::string(unit) + "\"");
  }
  return constant.at("value").as_number(0, most);
}

/// One of two words.
template <class Choice>
Choice parse_choice(const JsonView& text, std::string_view a, Choice if_a, std::string_view b, Choice if_b) {
  const std::string word = text.as_string();
  if (word == a) return if_a;
  if (word == b) return if_b;
  throw InputError(text.where(), "\"" + word + "\" is not known",
                   "write \"" + std::string(a) + "\" or \"" + std::string(b) + "\"");
}

void parse_fusion(const JsonView& fusion, EngineSpec& engine) {
  fusion.refuse_unknown_keys({"fp8_inputs", "all_reduce_norms", "shared_experts_in", "source"});
  static_cast<void>(fusion.at("source").as_string());
  if (fusion.has("fp8_inputs")) {
    engine.fp8_inputs = parse_choice(fusion.at("fp8_inputs"), "constant_scales", Fp8Inputs::constant_scales,
                                     "quantised_before", Fp8Inputs::quantised_before);
  }
  engine.all_reduce_norms = fusion.find_bool("all_reduce_norms").value_or(false);
  if (!fusion.has("shared_experts_in")) return;
  const JsonView kernels = fusion.at("shared_experts_in");
  if (!kernels.is_array()) throw InputError(kernels.where(), "is no list of kernels");
  for (std::size_t i = 0; i < kernels.size(); ++i) engine.shared_expert_kernels.push_back(kernels.at(i).as_string());
}

void parse_parallelism(const JsonView& root, EngineSpec& engine) {
  if (const auto exchange = root.at("collectives").find_string("experts_between_nodes")) {
    if (*exchange != "deepep") {
      throw InputError(root.at("collectives").where(), "\"" + *exchange + "\" carries no rows to experts",
                       "write \"deepep\", or leave experts_between_nodes out");
    }
    engine.deepep_between_nodes = true;
  }
  const JsonView collectives = root.at("collectives");
  if (collectives.has("replica_exchange")) {
    const JsonView exchange = collectives.at("replica_exchange");
    exchange.refuse_unknown_keys({"tensors", "call_a_replica", "split_rows", "source"});
    engine.replica_tensors = static_cast<int>(exchange.at("tensors").as_int(1, 8));
    engine.call_a_replica = exchange.at("call_a_replica").as_bool();
    engine.split_rows_to_experts = exchange.at("split_rows").as_bool();
  }
  if (collectives.has("replica_prompts")) {
    const JsonView prompts = collectives.at("replica_prompts");
    prompts.refuse_unknown_keys({"wait_steps", "source"});
    static_cast<void>(prompts.at("source").as_string());
    engine.prompts_wait_steps = static_cast<int>(prompts.at("wait_steps").as_int(0, 1'000'000));
  }
  if (collectives.has("all_reduce")) {
    const JsonView reduce = collectives.at("all_reduce");
    reduce.refuse_unknown_keys({"framework", "source"});
    static_cast<void>(reduce.at("source").as_string());
    engine.all_reduce_framework = framework_named(reduce.at("framework").as_string(), reduce.at("framework").where());
  }
  if (root.has("mixed_steps")) {
    const JsonView mixed = root.at("mixed_steps");
    mixed.refuse_unknown_keys({"mixes", "source"});
    static_cast<void>(mixed.at("source").as_string());
    engine.mixes_prompts = mixed.at("mixes").as_bool();
  }
  if (root.has("admission")) {
    const JsonView admission = root.at("admission");
    admission.refuse_unknown_keys({"reserves_outputs", "cache_share_of", "source"});
    static_cast<void>(admission.at("source").as_string());
    engine.reserves_outputs = admission.at("reserves_outputs").as_bool();
    engine.caches_free_memory = parse_choice(admission.at("cache_share_of"), "free_memory", true, "memory", false);
  }
  if (root.has("streams")) {
    const JsonView streams = root.at("streams");
    streams.refuse_unknown_keys({"shared_experts_up_to_rows", "source"});
    engine.shared_stream_rows = static_cast<double>(streams.at("shared_experts_up_to_rows").as_int(1, 1 << 20));
  }
  if (root.has("fusion")) parse_fusion(root.at("fusion"), engine);
  engine.two_batch_overlap = collectives.has("two_batch_overlap") && collectives.at("two_batch_overlap").as_bool();
  const JsonView pipeline = root.at("pipeline");
  pipeline.refuse_unknown_keys({"extra_layers", "tensors", "sliced", "source"});
  engine.pipeline.extra_layers =
      parse_choice(pipeline.at("extra_layers"), "first", ExtraLayers::first, "before_last", ExtraLayers::before_last);
  engine.pipeline.tensors = static_cast<int>(pipeline.at("tensors").as_int(1, 8));
  engine.pipeline.sliced = pipeline.at("sliced").as_bool();
  const JsonView context = root.at("context_parallel");
  context.refuse_unknown_keys({"prefill", "source"});
  engine.context_exchange =
      parse_choice(context.at("prefill"), "all_gather", ContextExchange::all_gather, "ring", ContextExchange::ring);
}

}  // namespace

std::array<double, EngineHost::kCount> EngineHost::values() const {
  std::array<double, kCount> out{};
  for (std::size_t i = 0; i < kHost.size(); ++i) out[i] = this->*kHost[i].field;
  return out;
}

EngineHost EngineHost::of(const std::array<double, kCount>& values) {
  EngineHost host;
  for (std::size_t i = 0; i < kHost.size(); ++i) host.*kHost[i].field = values[i];
  return host;
}

std::array<std::string_view, EngineHost::kCount> EngineHost::names() {
  std::array<std::string_view, kCount> out{};
  for (std::size_t i = 0; i < kHost.size(); ++i) out[i] = kHost[i].name;
  return out;
}

double EngineSpec::padded_rows(double rows) const {
  const auto found = std::ranges::lower_bound(graph_rows, rows);
  return found == graph_rows.end() ? rows : *found;
}

EngineSpec parse_engine_text(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  const JsonView root(json, where);
  root.refuse_unknown_keys({"schema_version", "name", "graph_rows", "largest_prefill_graph", "mixed_expert_parallelism",
                            "mixed_steps", "admission", "streams", "fusion", "collectives", "pipeline",
                            "context_parallel", "host", "interval", "service"});
  static_cast<void>(root.at("schema_version").as_int(kSchemaVersion, kSchemaVersion));
  EngineSpec engine;
  engine.name = root.at("name").as_string();
  const JsonView sizes = root.at("graph_rows");
  for (std::size_t i = 0; i < sizes.size(); ++i) add_sizes(sizes.at(i), engine.graph_rows);
  engine.largest_prefill_graph = root.at("largest_prefill_graph").as_number(0, 1e9);
  engine.mixed_expert_parallelism = root.at("mixed_expert_parallelism").as_bool();
  parse_parallelism(root, engine);
  const JsonView host = root.at("host");
  for (const HostField& field : kHost) {
    engine.host.*field.field = parse_constant(host.at(field.name), field.unit, 1e6);
  }
  engine.host_source = host.at("source").as_string();
  const JsonView interval = root.at("interval");
  engine.decode_interval = interval.at("decode").as_number(0, 100);
  engine.prefill_interval = interval.at("prefill").as_number(0, 100);
  if (interval.has("calibrated")) {
    engine.calibrated_model = interval.at("calibrated").at("model").as_string();
    engine.calibrated_system = interval.at("calibrated").at("system").as_string();
  }
  const auto pair = [&](std::string_view name) {
    const JsonView both = interval.at(name);
    if (both.size() != 2) throw InputError(both.where(), "is not [below, above]");
    return std::array<double, 2>{both.at(std::size_t{0}).as_number(0, 10), both.at(std::size_t{1}).as_number(0, 10)};
  };
  engine.tpot_interval = pair("tpot");
  engine.ttft_interval = pair("ttft");
  const JsonView service = root.at("service");
  for (const ServiceField& field : kService) {
    engine.service.*field.field = parse_constant(service.at(field.name), field.unit, 1e3);
  }
  return engine;
}

EngineSpec read_engine(const std::string& folder, const std::string& backend) {
  const std::string name = backend.substr(0, backend.find('-'));
  std::error_code ignored;
  std::string known;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  std::ranges::sort(names);
  for (const std::string& one : names) known += (known.empty() ? "" : ", ") + one;
  if (std::ranges::find(names, name) == names.end()) {
    throw InputError("backend", "\"" + name + "\" is no serving engine that is described", "known: " + known);
  }
  const std::string path = folder + "/" + name + ".json";
  return parse_engine_text(read_text_file(path), path);
}

}  // namespace moecast
