#include "models/architecture/huggingface/quantisation.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <nlohmann/json.hpp>

namespace moecast::huggingface {
namespace {

/// Upper-case name of an algorithm -> how it stores weights.
std::optional<DType> algorithm(std::string name, bool blocks) {
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
  if (name.find("NVFP4") != std::string::npos) return DType::nvfp4;
  if (name.starts_with("MXFP4")) return DType::mxfp4;
  if (name.starts_with("MXFP8")) return DType::mxfp8;
  if (name.starts_with("FP8") || name.starts_with("FLOAT8")) return blocks ? DType::fp8_block : DType::fp8;
  if (name == "INT8" || name == "W8A8") return DType::int8;
  if (name == "AWQ" || name == "GPTQ" || name == "INT4" || name.starts_with("W4A16")) return DType::int4;
  return std::nullopt;
}

/// "model.layers.3.self_attn*" is all of an attention block, "...self_attn.indexer.weights_proj" a small part of it.
bool is_whole_attention(std::string_view module) {
  const std::size_t at = module.find("self_attn");
  if (at == std::string_view::npos) return false;
  const std::string_view rest = module.substr(at + 9);
  return rest.find("o_proj") != std::string_view::npos || rest.find_first_not_of(".*") == std::string_view::npos;
}

/// Whether attention is listed as not quantised: then the experts are all that matters.
bool spares_attention(Config& config) {
  for (const std::string_view key : {"quantization_config.modules_to_not_convert", "quantization_config.ignore",
                                     "quantization_config.exclude_modules", "quantization_config.ignored_layers"}) {
    const auto list = config.find({key});
    if (!list || !list->is_array()) continue;
    for (std::size_t i = 0; i < list->size(); ++i) {
      if (list->at(i).is_string() && is_whole_attention(list->at(i).as_string())) return true;
    }
  }
  return false;
}

/// Mixed precision lists every quantised layer: the most common algorithm of experts, and of all the rest.
void read_layers(const JsonView& layers, Architecture& architecture) {
  std::map<DType, std::size_t> experts;
  std::map<DType, std::size_t> others;
  for (const auto& [name, layer] : layers.raw().items()) {
    const Json algo = layer.is_object() ? layer.value("quant_algo", Json()) : Json();
    const auto dtype = algo.is_string() ? algorithm(algo.get<std::string>(), false) : std::nullopt;
    if (!dtype) continue;
    const bool routed = name.find("experts") != std::string::npos && name.find("shared_experts") == std::string::npos;
    ++(routed ? experts : others)[*dtype];
  }
  const auto most = [](const std::map<DType, std::size_t>& counts) {
    return std::max_element(counts.begin(), counts.end(), [](auto& a, auto& b) { return a.second < b.second; })->first;
  };
  if (!experts.empty()) architecture.expert_dtype = most(experts);
  if (!others.empty()) {
    architecture.notes.push_back("mixed precision: layers other than experts are partly " +
                                 std::string(to_string(most(others))) + ", counted as " +
                                 std::string(to_string(architecture.dtype)));
  }
}

/// The whole's format: weights of quantised layers, before it is known which are.
std::optional<DType> quantised(Config& config) {
  const bool blocks = config.find({"quantization_config.weight_block_size"}).has_value();
  const std::int64_t bits = config.find_int({"quantization_config.bits"}, 0, 64).value_or(0);
  for (const std::string_view key :
       {"quantization_config.quant_algo", "quantization_config.format", "quantization_config.quant_method"}) {
    const auto text = config.find({key});
    if (!text || !text->is_string()) continue;
    if (const auto dtype = algorithm(text->as_string(), blocks)) {
      return *dtype == DType::int4 && bits == 8 ? DType::int8 : *dtype;
    }
  }
  return std::nullopt;
}

void read_cache(Config& config, Architecture& architecture) {
  const auto bits = config.find({"quantization_config.kv_cache_scheme.num_bits"});
  const auto algo = config.find({"quantization_config.kv_cache_quant_algo"});
  if (bits && bits->is_number() && bits->as_int() == 8) architecture.kv_dtype = DType::fp8;
  if (algo && algo->is_string()) architecture.kv_dtype = algorithm(algo->as_string(), false);
}

}  // namespace

void read_number_formats(Config& config, Architecture& architecture) {
  if (const auto text = config.find_text({"torch_dtype", "dtype"})) {
    if (const auto dtype = parse_dtype(*text)) architecture.dtype = *dtype;
  }
  if (const auto text = config.find_text({"expert_dtype"})) {
    const bool power_of_two = config.find_text({"quantization_config.scale_fmt"}).value_or("") == "ue8m0";
    architecture.expert_dtype = *text == "fp4" && power_of_two ? DType::mxfp4 : parse_dtype(*text);
  }
  if (!config.find({"quantization_config"})) return;
  read_cache(config, architecture);
  const auto layers = config.find({"quantization_config.quantized_layers"});
  const auto dtype = quantised(config);
  if (layers && layers->is_object()) {
    read_layers(*layers, architecture);
  } else if (!dtype) {
    architecture.notes.emplace_back("the quantisation is not known and left out");
  } else if (spares_attention(config)) {
    if (!architecture.expert_dtype) architecture.expert_dtype = dtype;  // experts alone are quantised
  } else {
    architecture.dtype = *dtype;
  }
}

}  // namespace moecast::huggingface
