#include "models/architecture/huggingface/config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "models/core/error.h"

namespace moecast::huggingface {
namespace {

/// Multimodal configurations keep the language model in one of these.
constexpr std::array<std::string_view, 5> kTextConfigs{"text_config", "language_config", "llm_config", "thinker_config",
                                                       "language_model"};

JsonView text_part(const JsonView& root) {
  for (const std::string_view key : kTextConfigs) {
    if (root.has(key) && root.at(key).is_object()) return text_part(root.at(key));
  }
  return root;
}

/// Fields that change no size, no operator and no byte of inference.
constexpr std::array<std::string_view, 52> kIdle{"architectures",
                                                 "auto_map",
                                                 "initializer_range",
                                                 "model_type",
                                                 "pretraining_tp",
                                                 "transformers_version",
                                                 "use_cache",
                                                 "output_router_logits",
                                                 "router_aux_loss_coef",
                                                 "aux_loss_alpha",
                                                 "seq_aux",
                                                 "ep_size",
                                                 "rotary_dim",
                                                 "max_window_layers",
                                                 "image_placeholder",
                                                 "video_placeholder",
                                                 "ignore_index",
                                                 "id2label",
                                                 "label2id",
                                                 "return_dict",
                                                 "is_decoder",
                                                 "is_encoder_decoder",
                                                 "_name_or_path",
                                                 "torchscript",
                                                 "use_bfloat16",
                                                 "prefix",
                                                 "problem_type",
                                                 "pruned_heads",
                                                 "task_specific_params",
                                                 "tf_legacy_loss",
                                                 "tokenizer_class",
                                                 "finetuning_task",
                                                 "num_logits_to_keep",
                                                 "residual_in_fp32",
                                                 "rescale_prenorm_residual",
                                                 "initial_context_length",
                                                 "temperature",
                                                 "num_reward_heads",
                                                 "use_mamba_kernels",
                                                 "chunk_size_feed_forward",
                                                 "z_loss_coef",
                                                 "router_z_loss_coef",
                                                 "typical_p",
                                                 "top_p",
                                                 "top_k",
                                                 "num_return_sequences",
                                                 "mamba_ssm_dtype",
                                                 "vocab_size_per_layer_input",
                                                 "swiglu_limit",
                                                 "swiglu_alpha",
                                                 "moe_router_dtype",
                                                 "qk_norm_type"};
constexpr std::array<std::string_view, 21> kIdleParts{
    "token_id",   "token_index", "token_type", "dropout",     "rope",
    "rotary",     "_eps",        "epsilon",    "beam",        "_length",
    "output_",    "time_step_",  "aux_loss",   "no_repeat",   "embedding_multiplier",
    "do_sample",  "tie_encoder", "_penalty",   "index_share", "index_skip",
    "index_topk_"};

bool idle(std::string_view key) {
  if (std::find(kIdle.begin(), kIdle.end(), key) != kIdle.end()) return true;
  return std::any_of(kIdleParts.begin(), kIdleParts.end(),
                     [&](std::string_view part) { return key.find(part) != std::string_view::npos; });
}

/// Whether the value switches nothing on: false, zero, empty.
bool says_nothing(const Json& value) {
  return value.is_null() || value == false || value == 0 || (value.is_structured() && value.empty()) || value == "";
}

}  // namespace

std::string describe(Names names) {
  std::string text = "\"";
  text += *names.begin();
  text += '"';
  std::string others;
  for (const std::string_view* name = names.begin() + 1; name != names.end(); ++name) {
    if (!others.empty()) others += ", ";
    others += *name;
  }
  return others.empty() ? text : text + " (also " + others + ")";
}

Config::Config(const JsonView& root) : root_(root), text_(text_part(root)) {
  for (const JsonView* view : {&text_, &root_}) {
    if (family_.empty() && view->has("model_type") && view->at("model_type").is_string()) {
      family_ = view->at("model_type").as_string();
    }
  }
}

std::optional<JsonView> Config::look_up(const JsonView& from, std::string_view path) {
  const std::size_t dot = path.find('.');
  const std::string_view head = path.substr(0, dot);
  if (!from.has(head)) return std::nullopt;
  if (dot == std::string_view::npos) return from.at(head);
  return look_up(from.at(head), path.substr(dot + 1));
}

std::optional<JsonView> Config::find(Names names) {
  for (const std::string_view name : names) asked_.emplace(name.substr(0, name.find('.')));
  for (const std::string_view name : names) {
    if (auto found = look_up(text_, name)) return found;
    if (auto found = look_up(root_, name)) return found;
  }
  return std::nullopt;
}

std::optional<std::int64_t> Config::find_int(Names names, std::int64_t low, std::int64_t high) {
  const auto found = find(names);
  if (!found) return std::nullopt;
  return found->as_int(low, high);
}

std::optional<double> Config::find_number(Names names, double low, double high) {
  const auto found = find(names);
  if (!found) return std::nullopt;
  return found->as_number(low, high);
}

std::optional<bool> Config::find_bool(Names names) {
  const auto found = find(names);
  if (!found) return std::nullopt;
  return found->as_bool();
}

std::optional<std::string> Config::find_text(Names names) {
  const auto found = find(names);
  if (!found) return std::nullopt;
  return found->as_string();
}

std::int64_t Config::need_int(Names names, std::int64_t low, std::int64_t high) {
  const auto found = find(names);
  if (!found) throw InputError(where(), describe(names) + " is missing", "without it the model's size is unknown");
  return found->as_int(low, high);
}

std::optional<std::vector<std::int64_t>> Config::find_ints(Names names, std::int64_t low, std::int64_t high) {
  const auto found = find(names);
  if (!found) return std::nullopt;
  std::vector<std::int64_t> numbers;
  const auto add = [&](const JsonView& view) {
    numbers.push_back(view.raw().is_boolean() ? (view.as_bool() ? 1 : 0) : view.as_int(low, high));
  };
  if (!found->is_array()) {
    add(*found);
    return numbers;
  }
  for (std::size_t i = 0; i < found->size(); ++i) add(found->at(i));
  if (numbers.empty()) return std::nullopt;
  return numbers;
}

std::optional<std::vector<std::string>> Config::find_texts(Names names) {
  const auto found = find(names);
  if (!found || !found->is_array()) return std::nullopt;
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < found->size(); ++i) texts.push_back(found->at(i).as_string());
  return texts;
}

std::vector<std::string> Config::ignored() const {
  std::vector<std::string> keys;
  for (const std::string& key : text_.keys()) {
    if (!asked_.contains(key) && !idle(key) && !says_nothing(text_.raw()[key])) keys.push_back(key);
  }
  return keys;
}

}  // namespace moecast::huggingface
