#include "hwprofiles/layers.h"

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostOfLayer = std::int64_t{1} << 40;
constexpr int kMostThreads = 1 << 20;
constexpr double kMostSeconds = 1e9;
const std::vector<std::string_view> kKeys{"stratum",  "architecture", "backend",         "dtype",     "threads",
                                          "strategy", "phase",        "batch",           "prompt",    "context",
                                          "copies",   "load",         "rows_per_expert", "latency_s", "low_s",
                                          "high_s",   "samples",      "preempted",       "round_s"};

std::string file_name(const std::string& folder) { return folder + "/samples/layers.jsonl.gz"; }

template <class Find>
auto word(const JsonView& json, Find find, const char* kind) {
  const auto value = find(json.as_string());
  if (!value) throw InputError(json.where(), "\"" + json.as_string() + "\" is not " + kind);
  return *value;
}

ExpertLoad read_load(const JsonView& json) {
  json.refuse_unknown_keys({"kind", "parameter", "histogram", "seed"});
  ExpertLoad load;
  load.kind = word(json.at("kind"), find_load_kind, "a load");
  load.parameter = json.find_number("parameter", 0, 100).value_or(0);
  load.seed = static_cast<std::uint64_t>(json.at("seed").as_int(0));
  if (json.has("histogram")) {
    const JsonView weights = json.at("histogram");
    for (std::size_t i = 0; i < weights.size(); ++i) load.histogram.push_back(weights.at(i).as_number(0));
  }
  return load;
}

Json write_load(const ExpertLoad& load) {
  Json json{{"kind", to_string(load.kind)}, {"parameter", load.parameter}, {"seed", load.seed}};
  if (!load.histogram.empty()) json["histogram"] = load.histogram;
  return json;
}

ExecutedLayer read_layer(const JsonView& json) {
  json.refuse_unknown_keys(kKeys);
  ExecutedLayer layer;
  layer.stratum = json.at("stratum").as_string();
  layer.architecture = read_architecture(json.at("architecture"));
  layer.deployment.backend = json.at("backend").as_string();
  layer.deployment.dtype = word(json.at("dtype"), parse_dtype, "a known dtype");
  layer.deployment.threads = static_cast<int>(json.at("threads").as_int(1, kMostThreads));
  layer.deployment.strategy = word(json.at("strategy"), find_strategy, "a kernel strategy");
  Workload& w = layer.workload;
  w.phase = word(json.at("phase"), find_phase, "a phase");
  w.batch = json.at("batch").as_int(1, kMostOfLayer);
  w.prompt = json.at("prompt").as_int(0, kMostOfLayer);
  w.context = json.at("context").as_int(0, kMostOfLayer);
  w.copies = json.at("copies").as_int(1, kMostOfLayer);
  w.load = read_load(json.at("load"));
  if (json.has("rows_per_expert")) {
    const JsonView rows = json.at("rows_per_expert");
    for (std::size_t i = 0; i < rows.size(); ++i) w.rows_per_expert.push_back(rows.at(i).as_int(0, kMostOfLayer));
  }
  layer.latency = Seconds(json.at("latency_s").as_number(1e-12, kMostSeconds));
  layer.low = Seconds(json.at("low_s").as_number(1e-12, layer.latency.value()));
  layer.high = Seconds(json.at("high_s").as_number(layer.latency.value(), kMostSeconds));
  layer.samples = static_cast<int>(json.at("samples").as_int(1, INT32_MAX));
  layer.preempted = static_cast<int>(json.at("preempted").as_int(0, layer.samples));
  const JsonView rounds = json.at("round_s");
  for (std::size_t i = 0; i < rounds.size(); ++i) layer.round_s.push_back(rounds.at(i).as_number(0, kMostSeconds));
  return layer;
}

Json write_layer(const ExecutedLayer& layer) {
  const Workload& w = layer.workload;
  Json json;
  json["stratum"] = layer.stratum;
  json["architecture"] = write_architecture(layer.architecture);
  json["backend"] = layer.deployment.backend;
  json["dtype"] = to_string(layer.deployment.dtype.value_or(layer.architecture.dtype));
  json["threads"] = layer.deployment.threads;
  json["strategy"] = to_string(layer.deployment.strategy);
  json["phase"] = to_string(w.phase);
  json["batch"] = w.batch;
  json["prompt"] = w.prompt;
  json["context"] = w.context;
  json["copies"] = w.copies;
  json["load"] = write_load(w.load);
  if (!w.rows_per_expert.empty()) json["rows_per_expert"] = w.rows_per_expert;
  json["latency_s"] = layer.latency.value();
  json["low_s"] = layer.low.value();
  json["high_s"] = layer.high.value();
  json["samples"] = layer.samples;
  json["preempted"] = layer.preempted;
  json["round_s"] = layer.round_s;
  return json;
}

}  // namespace

std::vector<ExecutedLayer> parse_layers_text(std::string_view text, const std::string& where) {
  std::vector<ExecutedLayer> layers;
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty()) continue;
    const std::string at = where + ": line " + std::to_string(number);
    const Json json = parse_json(line, at);
    layers.push_back(read_layer(JsonView(json, at)));
  }
  return layers;
}

std::string layers_text(const std::vector<ExecutedLayer>& layers) {
  std::string text;
  for (const ExecutedLayer& layer : layers) text += dump_json_line(write_layer(layer)) + '\n';
  return text;
}

std::vector<ExecutedLayer> read_layers(const std::string& folder) {
  const std::string path = file_name(folder);
  std::error_code unknown;
  if (!std::filesystem::exists(path, unknown)) return {};
  return parse_layers_text(read_text_file(path), path);
}

void write_layers(const std::string& folder, const std::vector<ExecutedLayer>& layers) {
  std::error_code failed;
  std::filesystem::create_directories(folder + "/samples", failed);
  if (failed) throw DeviceError(folder + "/samples", "cannot be made: " + failed.message());
  write_file_atomically(file_name(folder), layers_text(layers));
}

}  // namespace moecast
