#include "models/architecture/huggingface/placement.h"

#include <algorithm>
#include <array>
#include <functional>

#include "models/core/error.h"

namespace moecast::huggingface {
namespace {

template <class T>
void need_length(const std::vector<T>& list, std::size_t layers, const Config& config, std::string_view field) {
  if (list.size() >= layers) return;
  throw InputError(config.where(), "\"" + std::string(field) + "\" lists " + std::to_string(list.size()) +
                                       " layers, the model has " + std::to_string(layers));
}

template <class T>
std::vector<T> by_layer(std::size_t layers, const std::function<T(std::int64_t)>& of) {
  std::vector<T> result;
  for (std::size_t i = 0; i < layers; ++i) result.push_back(of(static_cast<std::int64_t>(i)));
  return result;
}

Mixer mixer_named(const std::string& type, const Config& config) {
  constexpr std::array<std::pair<std::string_view, Mixer>, 9> kTypes{{{"full_attention", Mixer::full},
                                                                      {"attention", Mixer::full},
                                                                      {"global_attention", Mixer::full},
                                                                      {"deepseek_sparse_attention", Mixer::full},
                                                                      {"sliding_attention", Mixer::sliding},
                                                                      {"chunked_attention", Mixer::chunked},
                                                                      {"linear_attention", Mixer::linear},
                                                                      {"lightning_attention", Mixer::linear},
                                                                      {"mamba", Mixer::state_space}}};
  for (const auto& [name, mixer] : kTypes) {
    if (name == type) return mixer;
  }
  throw InputError(config.where(), "\"layer_types\": \"" + type + "\" is not known");
}

/// Sliding windows that are switched on for all layers, or for those from max_window_layers on.
std::vector<Mixer> windowed(Config& config, std::size_t layers) {
  const bool window = config.find_int({"sliding_window"}).value_or(0) > 0;
  const bool on = config.find_bool({"use_sliding_window"}).value_or(true);
  const std::int64_t from =
      config.find_bool({"use_sliding_window"}).value_or(false) ? config.find_int({"max_window_layers"}).value_or(0) : 0;
  return by_layer<Mixer>(layers,
                         [&](std::int64_t i) { return window && on && i >= from ? Mixer::sliding : Mixer::full; });
}

}  // namespace

std::vector<Mixer> mixer_of_layers(Config& config, const Family& family, std::size_t layers) {
  const auto every = [&](std::int64_t period, std::int64_t offset, Mixer hit, Mixer other) {
    return by_layer<Mixer>(layers, [=](std::int64_t i) { return i % period == offset ? hit : other; });
  };
  const auto interval = config.find_int({"full_attention_interval"}, 1);
  if (const auto types = config.find_texts({"layer_types"})) {
    need_length(*types, layers, config, "layer_types");
    return by_layer<Mixer>(layers,
                           [&](std::int64_t i) { return mixer_named((*types)[static_cast<std::size_t>(i)], config); });
  }
  if (const auto pattern = config.find_ints({"hybrid_layer_pattern"})) {
    need_length(*pattern, layers, config, "hybrid_layer_pattern");
    return by_layer<Mixer>(layers, [&](std::int64_t i) {
      return (*pattern)[static_cast<std::size_t>(i)] != 0 ? Mixer::sliding : Mixer::full;
    });
  }
  if (const auto list = config.find_ints({"attn_type_list"})) {
    need_length(*list, layers, config, "attn_type_list");
    return by_layer<Mixer>(layers, [&](std::int64_t i) {
      return (*list)[static_cast<std::size_t>(i)] != 0 ? Mixer::full : Mixer::linear;
    });
  }
  if (const auto full = config.find_ints({"linear_attn_config.full_attn_layers"})) {  // counted from 1
    return by_layer<Mixer>(layers, [&](std::int64_t i) {
      return std::find(full->begin(), full->end(), i + 1) != full->end() ? Mixer::full : Mixer::linear;
    });
  }
  if (interval) return every(*interval, *interval - 1, Mixer::full, Mixer::linear);
  if (const auto period = config.find_int({"attn_layer_period"}, 1)) {
    return every(*period, config.find_int({"attn_layer_offset"}).value_or(0), Mixer::full, Mixer::state_space);
  }
  if (const auto pattern = config.find_int({"sliding_window_pattern"}, 1)) {
    return every(*pattern, *pattern - 1, Mixer::full, Mixer::sliding);
  }
  if (family.full_attention_every > 0 && config.find({"attention_chunk_size"})) {
    const int period = family.full_attention_every;
    return every(period, period - 1, Mixer::full, Mixer::chunked);
  }
  return windowed(config, layers);
}

std::vector<bool> moe_of_layers(Config& config, std::size_t layers) {
  const auto where = [&](const std::function<bool(std::int64_t)>& of) { return by_layer<bool>(layers, of); };
  const std::int64_t dense = config.find_int({"first_k_dense_replace", "num_dense_layers"}).value_or(0);
  const auto frequency = config.find_ints({"moe_layer_freq", "moe_layer_frequency"});
  if (const auto types = config.find_texts({"mlp_layer_types"})) {
    need_length(*types, layers, config, "mlp_layer_types");
    return where([&](std::int64_t i) { return (*types)[static_cast<std::size_t>(i)] != "dense"; });
  }
  if (frequency && (frequency->size() > 1 || layers == 1)) {
    need_length(*frequency, layers, config, "moe_layer_freq");
    return where([&](std::int64_t i) { return (*frequency)[static_cast<std::size_t>(i)] != 0; });
  }
  if (const auto period = config.find_int({"expert_layer_period"}, 1)) {
    const std::int64_t offset = config.find_int({"expert_layer_offset"}).value_or(0);
    return where([&](std::int64_t i) { return i % *period == offset; });
  }
  if (const auto interval = config.find_int({"moe_layer_interval", "interleave_moe_layer_step"}, 1)) {
    const auto starts = config.find_ints({"moe_layer_start_index"});
    const auto ends = config.find_ints({"moe_layer_end_index"}, -1);
    const std::int64_t first = starts ? *std::min_element(starts->begin(), starts->end()) : 0;
    std::int64_t last = ends && !ends->empty() ? *std::max_element(ends->begin(), ends->end()) : -1;
    if (last < 0) last = static_cast<std::int64_t>(layers) - 1;
    return where([&](std::int64_t i) { return i >= first && i <= last && (i + 1) % *interval == 0; });
  }
  const std::int64_t step = config.find_int({"decoder_sparse_step"}, 1).value_or(1);
  const auto only = config.find_ints({"mlp_only_layers"}).value_or(std::vector<std::int64_t>());
  const std::int64_t every = frequency && frequency->front() > 0 ? frequency->front() : 1;
  return where([&](std::int64_t i) {
    if (std::find(only.begin(), only.end(), i) != only.end()) return false;
    // DeepSeek counts its frequency from 0, the sparse step of Qwen and Arctic's frequency from 1.
    const bool hit = dense > 0 || every == 1 ? i % every == 0 : (i + 1) % every == 0;
    return i >= dense && hit && (i + 1) % step == 0;
  });
}

std::string hybrid_pattern(Config& config, Names string_names, Names list_names) {
  std::string pattern = config.find_text(string_names).value_or("");
  if (const auto types = config.find_texts(list_names); types && pattern.empty()) {
    for (const std::string& type : *types) {
      pattern += type == "mamba" ? 'M' : type == "moe" ? 'E' : type == "attention" ? '*' : type == "mlp" ? '-' : '?';
    }
  }
  const std::size_t wrong = pattern.find_first_not_of("ME*-");
  if (wrong == std::string::npos) return pattern;
  throw InputError(
      config.where(),
      "layer " + std::to_string(wrong) + " of " + describe(string_names) + " is of a kind that is not known",
      "M state space, E experts, * attention, - dense");
}

}  // namespace moecast::huggingface
