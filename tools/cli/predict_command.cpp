#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"
#include "tools/cli/event_answers.h"
#include "tools/cli/expert_events_answer.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/output.h"
#include "tools/cli/prediction_report.h"
#include "tools/cli/query_answers.h"
#include "tools/cli/query_options.h"

namespace moecast {
namespace {

std::vector<Answer> answer_all(const Predictor& predictor, std::vector<Query> queries, const std::string& model) {
  std::vector<Answer> answers;
  answers.reserve(queries.size());
  for (Query& query : queries) {
    Prediction prediction = predict_query(predictor, query, model);
    answers.push_back({std::move(query), std::move(prediction)});
  }
  return answers;
}

/// Where nobody names a cluster: that there are not as many devices in the one that is known of the machine.
void warn_of_devices(std::vector<Answer>& answers, const HardwareChoice& hardware, const DataFolders& folders) {
  constexpr double kUsualNode = 8;
  std::optional<Cluster> cluster;
  for (Answer& answer : answers) {
    const Deployment& d = answer.query.deployment;
    const double asked = static_cast<double>(d.tp) * d.dp * d.cp * d.pp;
    if (asked <= kUsualNode) continue;
    try {
      if (!cluster) {
        cluster = choose_cluster("", std::filesystem::path(hardware.folder).filename().string(), folders);
      }
      require_devices(*cluster, d);
    } catch (const UsageError& error) {
      if (!cluster) return;  // none is known
      answer.prediction.warnings.push_back(error.problem());
    }
  }
}

std::vector<Answer> ask(const QueryOptions& options, const std::string& cluster_name) {
  const DataFolders folders = find_data_folders(options.data);
  const HardwareChoice hardware = choose_hardware(options.hw, folders);
  refuse_backend_typo(options.backend, hardware);
  std::vector<Query> queries = make_queries(with_usual_load(options, hardware.gpu), folders, hardware.threads);
  std::optional<Cluster> cluster;
  if (!cluster_name.empty()) {
    if (!hardware.gpu) throw UsageError("--cluster", "is of GPUs, or of --engine event", "leave it out");
    cluster = choose_cluster(cluster_name, hardware.folder, folders);
  }
  for (Query& query : queries) {
    complete_query(query, options, hardware);
    if (!cluster) continue;
    require_devices(*cluster, query.deployment);
    query.inputs.push_back({"cluster", cluster->name, true});
  }
  const std::unique_ptr<Predictor> predictor = load_predictor(hardware, folders);
  std::vector<Answer> answers = answer_all(*predictor, std::move(queries), options.model);
  if (hardware.gpu && !cluster) warn_of_devices(answers, hardware, folders);
  return answers;
}

int run_predict(const QueryOptions& options, const EventFlags& events, const ExpertEventFlags& experts) {
  if (!experts.file.empty() && engine_of(events) == Engine::event) {
    throw UsageError("--events", "are of the analytic engine", "leave out --engine event");
  }
  if (!experts.file.empty()) return answer_expert_events(options, experts);
  if (!experts.recapture.empty()) throw UsageError("--recapture", "means nothing without --events", "leave it out");
  const Format format = parse_format(options.format);
  std::vector<Answer> answers;
  if (engine_of(events) == Engine::event) {
    std::optional<std::vector<Answer>> sampled = event_answers(options, events);
    if (!sampled) return 130;
    answers = std::move(*sampled);
  } else {
    answers = ask(options, events.cluster);
  }
  show_warnings(answers);
  const bool single = answers.size() == 1 && answers.front().query.varied.empty();
  if (format == Format::table && single) {
    write_stdout(summary_text(answers.front()));
  } else if (format == Format::table || format == Format::md) {
    write_stdout(render_table(summary_table(answers), format));
  } else {
    std::vector<Json> records;
    records.reserve(answers.size());
    for (const Answer& answer : answers) records.push_back(prediction_json(answer));
    write_stdout(render_records(records, format, single));
  }
  return 0;
}

}  // namespace

void add_predict_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<QueryOptions>();
  const Command command =
      app.add_subcommand("predict", "Predict the latency of one step of a model, or of a MoE layer");
  const auto events = std::make_shared<EventFlags>();
  add_query_options(command, *options);
  add_event_options(command, *events, true);
  const auto experts = std::make_shared<ExpertEventFlags>();
  add_expert_event_options(command, *experts);
  command.footer(
      "Numeric flags take ranges: 1,8,64 or 1-64*2 or 1-8; each combination gives one answer.\n\n"
      "Examples:\n"
      "  moecast predict --model mixtral-8x7b --batch 8 --context 4096\n"
      "  moecast predict --model ./config.json --phase prefill --prompt 512 --dtype bf16 --format json\n"
      "  moecast predict --hidden 1024 --width 2048 --experts 16 --top-k 2 --tokens 1-256*2 --load zipf:1.0\n"
      "  moecast predict --model olmoe-1b-7b --phase train --batch 8 --prompt 512 --freeze router --recompute "
      "selective\n"
      "  moecast predict --engine event --samples 200 --model deepseek-v3 --hw h200-sxm --ep 64 --batch 8192\n"
      "  moecast predict --engine event --model qwen3-235b-a22b --hw h100-sxm --ep 8 --batch 256 --load "
      "log-normal:1.05 "
      "--placement balanced --slow-rank 3:1.2\n"
      "  moecast predict --model mixtral-8x7b --hw h100-sxm --offload lru --resident-experts 2-6\n");
  command.callback([options, events, experts, &line] {
    line.run = [options, events, experts] { return run_predict(*options, *events, *experts); };
  });
}

}  // namespace moecast
