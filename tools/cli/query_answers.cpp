#include "tools/cli/query_answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "models/plan/deployment_rules.h"
#include "sim/analytic/parallel_efficiency.h"
#include "sim/step/gpu_predictor.h"

namespace moecast {

void blame_flag(const InputError& error, const std::string& model) {
  static const std::map<std::string, const char*> flags{{"tp", "--tp"},
                                                        {"ep", "--ep"},
                                                        {"pp", "--pp"},
                                                        {"moe_tp", "--moe-tp"},
                                                        {"cp", "--cp"},
                                                        {"micro_batches", "--micro-batches"},
                                                        {"redundant_experts", "--redundant-experts"},
                                                        {"placement", "--placement"},
                                                        {"eager", "--eager"},
                                                        {"all_reduce", "--all-reduce"},
                                                        {"draft_tokens", "--draft-tokens"},
                                                        {"acceptance", "--acceptance"},
                                                        {"phase", "--phase"},
                                                        {"copies", "--copies"},
                                                        {"load", "--load"},
                                                        {"rows_per_expert", "--rows"},
                                                        {"cluster", "--cluster"},
                                                        {"resident_experts", "--resident-experts"},
                                                        {"kv_dtype", "--kv-dtype"},
                                                        {"gpus", "--gpus"},
                                                        {"slow rank", "--slow-rank"},
                                                        {"exchange", "--exchange"},
                                                        {"flows", "--flows"},
                                                        {"shadow", "--shadow"},
                                                        {"chunks", "--chunks"},
                                                        {"batches", "--batches"},
                                                        {"backend", "--backend"},
                                                        {"accumulation", "--accumulation"},
                                                        {"replicas", "--replicas"},
                                                        {"batch", "--batch"},
                                                        {"offload", "--offload"},
                                                        {"modality", "--modality"},
                                                        {"tasks", "--tasks"}};
  if (const auto flag = flags.find(error.where()); flag != flags.end()) {
    throw UsageError(flag->second, error.problem(), error.hint());
  }
  if (error.where().starts_with("link ")) {
    throw UsageError("--slow-link", fmt::format("\"{}\" {}", error.where().substr(5), error.problem()), error.hint());
  }
  if (!error.where().empty()) throw error;
  throw InputError(model.empty() ? "layer" : model, error.problem(), error.hint());
}

void show_warnings(const std::vector<Answer>& answers) {
  std::set<std::string> shown;
  for (const Answer& answer : answers) {
    for (const std::string& text : answer.query.architecture.notes) {
      if (shown.insert(text).second) note("note: " + text);
    }
    for (const std::string& text : answer.prediction.warnings) {
      if (shown.insert(text).second) warn(text);
    }
  }
}

QueryOptions with_usual_load(QueryOptions options, bool gpu) {
  if (gpu && options.load.empty() && options.rows.empty()) options.load = "log-normal:1";
  return options;
}

void refuse_cpu_flags(const QueryOptions& options, const HardwareChoice& hardware) {
  if (!hardware.gpu) return;
  const auto refuse = [](const std::string& typed, const char* flag, const char* problem) {
    if (!typed.empty()) throw UsageError(flag, problem, "leave it out");
  };
  refuse(options.strategy, "--strategy", "is chosen by the engine on a GPU");
  refuse(options.numbers.at("--threads"), "--threads", "are those of a CPU");
  refuse(options.numbers.at("--copies"), "--copies", "of a layer in a row are executed on CPUs only");
}

void refuse_expert_degrees(const Architecture& architecture, const Deployment& deployment) {
  if (has_experts(architecture)) return;
  const auto refuse = [&](bool given, const char* flag) {
    if (given) throw UsageError(flag, architecture.name + " has no experts", "leave it out");
  };
  refuse(deployment.ep > 1, "--ep");
  refuse(deployment.moe_tp.value_or(1) > 1, "--moe-tp");
  refuse(deployment.redundant_experts > 0, "--redundant-experts");
}

void complete_query(Query& query, const QueryOptions& options, const HardwareChoice& hardware) {
  refuse_cpu_flags(options, hardware);
  refuse_expert_degrees(query.architecture, query.deployment);
  if (!has_experts(query.architecture) && !options.load.empty()) {
    throw UsageError("--load", query.architecture.name + " has no experts", "leave it out");
  }
  fill_in_assumed(query, hardware);
  for (InputValue& input : query.inputs) {
    if (input.name == "load" && options.load.empty()) input.given = false;
    if (input.name == "backend" && options.backend.empty() && hardware.gpu) input.value = std::string("vllm");
  }
  query.inputs.push_back({"hw_folder", hardware.folder, false});
}

Prediction predict_query(const Predictor& predictor, const Query& query, const std::string& model, bool rated) try {
  Prediction prediction = predictor.predict(query.architecture, query.deployment, query.workload, query.without);
  if (rated) {
    rate_expert_parallelism(predictor, query.architecture, query.deployment, query.workload, query.without, prediction);
  }
  return prediction;
} catch (const InputError& error) {
  blame_flag(error, model);
}

void fill_in_assumed(Query& query, const HardwareChoice& hardware) {
  const auto say = [&](std::string_view name, auto value) {
    for (InputValue& input : query.inputs) {
      if (input.name == name) input.value = value;
    }
  };
  if (hardware.gpu) say("dp", std::int64_t{with_attention_replicas(query.deployment).dp});
  const std::vector<DType>& known = hardware.dtypes;
  const auto has = [&](DType dtype) { return std::find(known.begin(), known.end(), dtype) != known.end(); };
  if (query.deployment.dtype || known.empty() || has(query.architecture.dtype)) return;
  query.deployment.dtype = known.front();
  say("dtype", std::string(to_string(known.front())));
}

}  // namespace moecast
