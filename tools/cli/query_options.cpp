#include "tools/cli/query_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"
#include "models/plan/memory.h"
#include "models/plan/token_classes.h"
#include "models/routing/routing_trace.h"
#include "tools/cli/command.h"
#include "tools/cli/model_choice.h"
#include "tools/cli/query_numbers.h"

namespace moecast {
namespace {

Deployment deployment_of(const QueryOptions& options, const Combination& values, int default_threads) {
  Deployment deployment;
  deployment.tp = values.as_int("--tp");
  deployment.ep = values.as_int("--ep");
  deployment.dp = values.as_int("--dp");
  deployment.pp = values.as_int("--pp");
  if (values.has("--micro-batches")) deployment.micro_batches = values.as_int("--micro-batches");
  deployment.cp = values.as_int("--cp");
  deployment.redundant_experts = values.as_int("--redundant-experts");
  deployment.eager = options.eager;
  deployment.draft_tokens = values.as_int("--draft-tokens");
  if (values.has("--moe-tp")) deployment.moe_tp = values.as_int("--moe-tp");
  deployment.threads = values.has("--threads") ? values.as_int("--threads") : default_threads;
  deployment.backend = options.backend;
  if (!options.strategy.empty()) deployment.strategy = parse_strategy(options.strategy);
  if (!options.dtype.empty()) deployment.dtype = parse_dtype_flag(options.dtype);
  if (!options.kv_dtype.empty()) deployment.kv_dtype = parse_dtype_flag(options.kv_dtype, "--kv-dtype");
  deployment.all_reduce = parse_all_reduce(options.all_reduce);
  deployment.offload =
      parse_offload(options.offload,
                    values.has("--resident-experts") ? std::optional(values.at("--resident-experts")) : std::nullopt);
  return deployment;
}

/// Models without a decoder can only encode; all others decode unless told otherwise.
Phase parse_phase(const std::string& text, const Architecture* model) {
  if (text.empty()) return model != nullptr && model->decoder.empty() ? Phase::encode : Phase::decode;
  if (const auto phase = find_phase(text)) return *phase;
  const auto near = nearest_name(text, {"decode", "prefill", "mixed", "encode", "train"});
  throw UsageError("--phase", fmt::format("\"{}\" is not a phase", text),
                   near ? fmt::format("did you mean \"{}\"?", *near) : "write decode, prefill, mixed, encode or train");
}

/// Flags of training steps outside of them.
void refuse_training_flags(const QueryOptions& options, const Combination& values) {
  std::string typed = typed_training_flag(options.training);
  for (const char* flag : {"--accumulation", "--replicas", "--zero"}) {
    if (typed.empty() && values.given(flag)) typed = flag;
  }
  if (!typed.empty()) throw UsageError(typed, "means nothing outside of training", "write --phase train");
}

TrainingPlan plan_of(const QueryOptions& options, const Combination& values) {
  return training_plan(options.training, {values.at("--accumulation"), values.at("--replicas"), values.at("--zero")});
}

bool encodes_and_decodes(const Architecture& model) { return !model.encoder.empty() && !model.decoder.empty(); }

/// The phase does not read the flag.
bool idle_in(std::string_view flag, Phase phase) {
  if (flag == "--prompt") return phase == Phase::decode;
  if (flag == "--context") return phase == Phase::prefill || phase == Phase::encode || phase == Phase::train;
  if (flag == "--accumulation" || flag == "--replicas" || flag == "--zero") return phase != Phase::train;
  if (flag == "--prefill-batch") return phase != Phase::mixed;
  if (flag == "--prefix") return phase != Phase::prefill && phase != Phase::mixed;
  return flag == "--source" && phase == Phase::encode;
}

/// A flag that the phase does not read would be ignored silently.
void refuse_idle_flags(Phase phase, const Combination& values, const Architecture& model) {
  const auto refuse = [&](const char* flag, const char* hint) {
    if (idle_in(flag, phase) && values.given(flag)) throw UsageError(flag, "means nothing in this phase", hint);
  };
  refuse("--prompt", "write --phase prefill or mixed, or --context N for decode");
  refuse("--context", "write --prompt N");
  refuse("--prefill-batch", "write --phase mixed");
  refuse("--prefix", "write --phase prefill or mixed; --context N is what a decoding sequence has");
  refuse("--source", "write --prompt N");
  if (!encodes_and_decodes(model) && values.given("--source")) {
    throw UsageError("--source", "means nothing for a model without an encoder and a decoder", "leave it out");
  }
}

/// Modalities of a model that tells none apart would be ignored silently.
void refuse_unknown_modalities(const Workload& workload, const Architecture& model) {
  if (workload.modalities.empty()) return;
  for (const auto* stack : {&model.encoder, &model.decoder}) {
    for (const Layer& layer : *stack) {
      for (const Block& block : layer.blocks) {
        const auto* moe = std::get_if<MoeBlock>(&block);
        if (moe != nullptr && splits_by_modality(*moe)) return;
      }
    }
  }
  throw UsageError("--modality", "means nothing for " + model.name + ": its experts are for all tokens",
                   "leave it out");
}

ExpertLoad load_of(const QueryOptions& options) {
  return parse_load(options.load.empty() ? "uniform" : options.load,
                    static_cast<std::uint64_t>(parse_count(options.seed, "--seed")));
}

/// A recorded routing is of models that choose as many experts.
void refuse_other_trace(const Query& query) {
  const auto& trace = query.workload.load.trace;
  if (!trace) return;
  for (const auto* stack : {&query.architecture.encoder, &query.architecture.decoder}) {
    for (const Layer& layer : *stack) {
      for (const Block& block : layer.blocks) {
        const auto* moe = std::get_if<MoeBlock>(&block);
        if (moe == nullptr || moe->router.top_k == trace->top_k) continue;
        throw InputError(trace->path,
                         fmt::format("holds {} experts a token, the model chooses {}", trace->top_k, moe->router.top_k),
                         "is it the trace of another model?");
      }
    }
  }
}

Workload workload_of(const QueryOptions& options, const ExpertLoad& load, const Combination& values,
                     const Architecture* model) {
  Workload workload;
  const bool layer = model == nullptr;
  workload.load = load;
  workload.copies = values.at("--copies");
  parse_mix(options.mix, workload);
  if (!options.acceptance.empty()) workload.acceptance = parse_number(options.acceptance, "--acceptance", 0, 1);
  if (!options.rows.empty()) {
    if (!layer) throw UsageError("--rows", "are those of a single MoE layer, not of a whole model", "write --load");
    if (!options.load.empty()) throw UsageError("--rows", "and --load exclude each other", "give one of the two");
    for (const std::string& rows : split_list(options.rows, "--rows")) {
      workload.rows_per_expert.push_back(parse_count(rows, "--rows", 0, kMaxSize));
    }
  }
  if (layer && !workload.modalities.empty()) {
    throw UsageError("--modality", "means nothing for a single layer: its experts are for all tokens", "leave it out");
  }
  if (layer) {
    const std::int64_t tokens = values.has("--tokens") ? values.at("--tokens") : 1;
    const bool trains = options.phase == "train";
    workload.phase = trains ? Phase::train : Phase::prefill;
    workload.batch = trains ? tokens : 1;  // each token an example: micro-batches share them
    workload.prompt = trains ? 1 : tokens;
    if (trains) workload.training = plan_of(options, values);
    if (!trains) refuse_training_flags(options, values);
    return workload;
  }
  refuse_unknown_modalities(workload, *model);
  workload.phase = parse_phase(options.phase, model);
  if (workload.phase == Phase::train) {
    workload.training = plan_of(options, values);
  } else {
    refuse_training_flags(options, values);
  }
  refuse_idle_flags(workload.phase, values, *model);
  workload.batch = values.at("--batch");
  workload.context = idle_in("--context", workload.phase) ? 0 : values.at("--context");
  if (workload.phase == Phase::prefill) workload.context = values.at("--prefix");
  if (workload.phase == Phase::mixed) workload.prefix = values.at("--prefix");
  workload.prompt = workload.phase == Phase::decode ? 1 : values.at("--prompt");
  if (values.has("--source")) workload.source = values.at("--source");
  workload.prefill_batch = workload.phase == Phase::mixed ? values.at("--prefill-batch") : 0;
  return workload;
}

LayerChoice layer_of(const QueryOptions& options, const Combination& values) {
  LayerChoice layer;
  for (const char* name : {"--hidden", "--width", "--experts", "--top-k"}) {
    if (!values.has(name)) {
      throw UsageError(name, "is missing for a single MoE layer",
                       "write e.g. --hidden 1024 --width 2048 --experts 8 --top-k 2 --tokens 64");
    }
  }
  layer.hidden = values.at("--hidden");
  layer.width = values.at("--width");
  layer.experts = values.at("--experts");
  layer.top_k = values.at("--top-k");
  layer.shared_experts = values.has("--shared-experts") ? values.at("--shared-experts") : 0;
  layer.gated = !options.no_gated;
  if (!options.capacity_factor.empty() && options.capacity_factor != "none") {
    layer.capacity_factor = parse_number(options.capacity_factor, "--capacity-factor", 1e-6, 1e6);
  }
  if (!layer.capacity_factor && !options.overflow.empty()) {
    throw UsageError("--overflow", "means nothing without a capacity", "write --capacity-factor F");
  }
  if (!layer.capacity_factor && options.pad) {
    throw UsageError("--pad", "means nothing without a capacity",
                     "write --capacity-factor F; --strategy capacity-padded pads to the fullest expert");
  }
  layer.pad = options.pad;
  layer.overflow = options.overflow;
  layer.activation = options.activation;
  return layer;
}

bool asks_for_layer(const QueryOptions& options) {
  for (const NumberFlag& flag : number_flags()) {
    if (flag.group == kLayerGroup && !options.numbers.at(flag.name).empty()) return true;
  }
  return options.gated || options.no_gated || !options.capacity_factor.empty() || options.pad ||
         !options.overflow.empty() || !options.activation.empty();
}

/// A model and a layer exclude each other, and each has its own flags for the size of the step.
void refuse_contradictions(const QueryOptions& options, bool layer) {
  if (options.gated && options.no_gated) throw UsageError("--no-gated", "contradicts --gated", "give one of the two");
  if (options.model.empty() && !layer) {
    throw UsageError("--model", "is missing",
                     "a name of moecast list models, a config.json, or a layer: --hidden 1024 --width 2048 --experts 8 "
                     "--top-k 2 --tokens 64");
  }
  if (!options.model.empty() && layer) {
    throw UsageError("--model", "and the flags of a single layer exclude each other",
                     "leave out --hidden, --width, --experts, --top-k, --tokens, ...; for a model write --batch");
  }
  if (!layer) return;
  for (const char* name : {"--batch", "--context", "--prompt", "--prefix", "--source", "--prefill-batch",
                           "--draft-tokens", "--max-context"}) {
    if (!options.numbers.at(name).empty()) {
      throw UsageError(name, "means nothing for a single layer", "write --tokens N");
    }
  }
  if (!options.kv_dtype.empty()) throw UsageError("--kv-dtype", "means nothing for a single layer", "leave it out");
  if (!options.all_reduce.empty()) throw UsageError("--all-reduce", "means nothing for a single layer", "leave it out");
  if (!options.acceptance.empty()) {
    throw UsageError("--acceptance", "means nothing for a single layer", "leave it out");
  }
  if (!options.phase.empty() && options.phase != "train") {
    throw UsageError("--phase", "means nothing for a single layer", "write --tokens N, or --phase train");
  }
}

std::vector<InputValue> inputs_of(const QueryOptions& options, const Query& query, const Combination& values,
                                  bool layer) {
  std::vector<InputValue> inputs;
  const auto add = [&](const char* name, auto value, bool given) { inputs.push_back({name, std::move(value), given}); };
  const auto text = [&](const char* name, std::string value, const std::string& typed) {
    inputs.push_back({name, std::move(value), !typed.empty()});
  };
  text("model", layer ? "layer" : options.model, options.model);
  text("hw", options.hw, options.hw == "this-machine" ? "" : options.hw);
  const bool trains = query.workload.phase == Phase::train;
  if (!layer || trains) text("phase", std::string(to_string(query.workload.phase)), options.phase);
  for (const NumberFlag& flag : number_flags()) {
    const std::string_view name = flag.name;
    const bool of_model = flag.group == kWorkloadGroup && name != "--copies";
    if ((layer ? of_model : flag.group == kLayerGroup) || !values.has(flag.name)) continue;
    if (flag.group == kTrainingGroup && !trains) continue;
    if (name == "--context") {
      add(flag.key, idle_in(name, query.workload.phase) ? 0 : query.workload.context, values.given(flag.name));
    } else if (name == "--prompt") {
      add(flag.key, query.workload.prompt, values.given(flag.name));
    } else {
      add(flag.key, values.at(flag.name), values.given(flag.name));
    }
  }
  if (layer && !values.has("--tokens")) add("tokens", query.workload.prompt, false);
  if (layer) {
    const auto& moe = std::get<MoeBlock>(query.architecture.decoder.front().blocks.front());
    add("gated", moe.experts.front().expert.gated, options.gated || options.no_gated);
    if (moe.capacity.eval_factor) add("capacity_factor", *moe.capacity.eval_factor, true);
  }
  if (!values.has("--threads")) add("threads", std::int64_t{query.deployment.threads}, false);
  text("backend", options.backend.empty() ? "the profile's first" : options.backend, options.backend);
  text("strategy", strategy_name(query.deployment.strategy), options.strategy);
  text("dtype", std::string(to_string(query.deployment.dtype.value_or(query.architecture.dtype))), options.dtype);
  if (!layer)
    text("kv_dtype", std::string(to_string(cache_dtype(query.architecture, query.deployment))), options.kv_dtype);
  if (!options.all_reduce.empty()) text("all_reduce", options.all_reduce, options.all_reduce);
  if (query.deployment.eager) add("eager", true, true);
  if (query.workload.acceptance) add("acceptance_ratio", *query.workload.acceptance, true);
  add_mix_inputs(options.mix, query.workload, inputs);
  if (query.deployment.offload) add_offload_inputs(options.offload, *query.deployment.offload, inputs);
  text("load", options.load.empty() ? "uniform" : options.load, options.load);
  add("seed", static_cast<std::int64_t>(query.workload.load.seed), options.seed != "1");
  if (trains) add_training_inputs(query.workload.training, options.training, inputs);
  if (!query.workload.rows_per_expert.empty()) add("rows_per_expert", query.workload.rows_per_expert, true);
  return inputs;
}

}  // namespace

bool asks_nothing(const QueryOptions& options) { return options.model.empty() && !asks_for_layer(options); }

std::shared_ptr<const Architecture> asked_model(const QueryOptions& options, const DataFolders& folders) {
  const bool layer = asks_for_layer(options);
  refuse_contradictions(options, layer);
  return layer ? nullptr : std::make_shared<const Architecture>(load_model(options.model, folders));
}

void drop_idle_numbers(QueryOptions& options, const std::string& phase, const Architecture* model) {
  const Phase chosen = parse_phase(phase, model);
  for (auto& [flag, text] : options.numbers) {
    if (idle_in(flag, chosen)) text.clear();
  }
  if (model != nullptr && !encodes_and_decodes(*model)) options.numbers["--source"].clear();
}

QuerySet::QuerySet(QueryOptions options, std::shared_ptr<const Architecture> model, int default_threads,
                   std::size_t most)
    : options_(std::move(options)),
      model_(std::move(model)),
      default_threads_(default_threads),
      load_(load_of(options_)) {
  for (const NumberFlag& flag : number_flags()) {
    const std::string& text = options_.numbers.at(flag.name);
    axes_.push_back(text.empty() ? std::vector<std::int64_t>() : parse_range(text, flag.name, flag.low, flag.high));
    size_ *= std::max<std::size_t>(axes_.back().size(), 1);
    if (size_ > most) {
      throw UsageError(flag.name, fmt::format("makes more than {} combinations", most), "choose a coarser range");
    }
  }
  // What is wrong whatever the numbers are is said before the first combination.
  const Combination values(axes_, 0);
  static_cast<void>(deployment_of(options_, values, default_threads_));
  static_cast<void>(workload_of(options_, load_, values, model_.get()));
  static_cast<void>(parse_without(options_.without));
  if (model_) return;
  LayerChoice layer = layer_of(options_, values);
  layer.top_k = 1;
  static_cast<void>(make_layer(layer));
}

Query QuerySet::at(std::size_t index) const {
  const Combination values(axes_, index);
  Query query{model_ ? *model_ : make_layer(layer_of(options_, values)),
              deployment_of(options_, values, default_threads_),
              workload_of(options_, load_, values, model_.get()),
              parse_without(options_.without),
              {},
              {}};
  if (values.has("--max-context")) query.architecture.max_context = values.at("--max-context");
  refuse_other_trace(query);
  query.inputs = inputs_of(options_, query, values, !model_);
  for (std::size_t i = 0; i < number_flags().size(); ++i) {
    if (axes_[i].size() > 1) query.varied[number_flags()[i].name] = values.at(number_flags()[i].name);
  }
  return query;
}

std::vector<std::pair<std::string, std::int64_t>> QuerySet::varied(std::size_t index) const {
  const Combination values(axes_, index);
  std::vector<std::pair<std::string, std::int64_t>> found;
  for (std::size_t i = 0; i < number_flags().size(); ++i) {
    if (axes_[i].size() > 1) found.emplace_back(number_flags()[i].key, values.at(number_flags()[i].name));
  }
  return found;
}

std::vector<Query> make_queries(const QueryOptions& options, const DataFolders& folders, int default_threads) {
  const QuerySet set(options, asked_model(options, folders), default_threads, 1'000'000);
  std::vector<Query> queries;
  queries.reserve(set.size());
  for (std::size_t index = 0; index < set.size(); ++index) queries.push_back(set.at(index));
  return queries;
}

}  // namespace moecast
