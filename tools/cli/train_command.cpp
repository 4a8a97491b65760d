#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "models/plan/graph.h"
#include "sim/analytic/parallel_efficiency.h"
#include "sim/analytic/training_run.h"
#include "tools/cli/command.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/output.h"
#include "tools/cli/query_answers.h"
#include "tools/cli/query_options.h"
#include "tools/cli/training_report.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostSteps = 1'000'000'000'000;

struct TrainOptions {
  QueryOptions query;
  std::vector<std::string> stages;
  std::string rounds = "1";
};

/// A stage as it was typed: the run's flags with its own in their place.
struct AskedStage {
  std::string name;
  std::int64_t steps = 0;
  QueryOptions query;
};

AskedStage parse_stage(const TrainOptions& options, const std::string& text, std::size_t number) {
  constexpr const char* kCommand = "moecast predict";
  const std::string where = fmt::format("--stage {}", number);
  std::string steps;
  AskedStage stage;
  stage.name = fmt::format("stage {}", number);
  const auto parse = [&](QueryOptions& into) {
    const auto given = parse_words(text, kCommand, [&](const Command& flags) {
      flags.add_option("--steps", steps, "").not_empty();
      flags.add_option("--name", stage.name, "").not_empty();
      add_query_options(flags, into);
    });
    for (const char* flag : {"--format", "--data"}) {
      if (given.contains(flag)) throw UsageError(flag, "is of the whole run", "write it before --stage");
    }
  };
  try {
    QueryOptions typed;
    parse(typed);
    stage.query = options.query;
    // What the run said and the stage says otherwise.
    if (!typed.training.freeze.empty()) stage.query.training.train_only.clear();
    if (!typed.training.train_only.empty()) stage.query.training.freeze.clear();
    if (!typed.training.attack.empty()) stage.query.training = {};
    if (!typed.phase.empty() && typed.phase != "train") {
      stage.query.training = {};
      drop_idle_numbers(stage.query, typed.phase, nullptr);
    }
    parse(stage.query);
    if (stage.query.phase.empty()) stage.query.phase = "train";
    if (steps.empty()) throw UsageError("--steps", "is missing", "write e.g. --stage \"--steps 1000 --freeze router\"");
    stage.steps = parse_count(steps, "--steps", 1, kMostSteps);
  } catch (const UsageError& error) {
    throw UsageError(error.where().empty() ? where : where + ": " + error.where(), error.problem(), error.hint());
  }
  return stage;
}

/// Predictors of the machines that stages name: one for the usual run.
class Machines {
 public:
  explicit Machines(const DataFolders& folders) : folders_(folders) {}

  Answer answer(const QueryOptions& options) {
    if (!predictor_ || options.hw != name_) {
      hardware_ = choose_hardware(options.hw, folders_);
      predictor_ = load_predictor(hardware_, folders_);
      name_ = options.hw;
    }
    refuse_backend_typo(options.backend, hardware_);
    std::vector<Query> queries = make_queries(with_usual_load(options, hardware_.gpu), folders_, hardware_.threads);
    if (queries.size() != 1) {
      throw UsageError("", fmt::format("a stage is one question, these ranges make {}", queries.size()),
                       "moecast sweep takes ranges");
    }
    complete_query(queries.front(), options, hardware_);
    Prediction prediction = predict_query(*predictor_, queries.front(), options.model);
    return {std::move(queries.front()), std::move(prediction)};
  }

 private:
  const DataFolders& folders_;
  std::string name_;
  HardwareChoice hardware_;
  std::unique_ptr<Predictor> predictor_;
};

Json costs_json(const RunCosts& costs) {
  const auto seconds = [](const std::optional<Seconds>& value) { return value ? Json(value->value()) : Json(); };
  return {{"wall_clock_s", seconds(costs.wall_clock)},
          {"wall_clock_low_s", seconds(costs.low)},
          {"wall_clock_high_s", seconds(costs.high)},
          {"device_hours", costs.device_hours ? Json(*costs.device_hours) : Json()},
          {"steps", costs.steps},
          {"tokens", costs.tokens}};
}

Json run_json(const std::vector<TrainingStage>& stages, const std::vector<Answer>& answers, const TrainingRun& run,
              std::int64_t rounds) {
  Json list = Json::array();
  for (std::size_t i = 0; i < stages.size(); ++i) {
    Json json = costs_json(run.stages[i]);
    json["name"] = stages[i].name;
    json["step"] = prediction_json(answers[i]);
    list.push_back(std::move(json));
  }
  return {{"rounds", rounds}, {"stages", std::move(list)}, {"total", costs_json(run.total)}};
}

std::string hours_text(const std::optional<double>& hours) { return hours ? fmt::format("{:.3g} h", *hours) : "–"; }

Table run_table(const std::vector<TrainingStage>& stages, const std::vector<Answer>& answers, const TrainingRun& run) {
  Table table{{"stage", "steps", "step", "tokens", "wall clock", "90 % interval", "device time", "memory"}, {}};
  const auto row = [&](const std::string& name, const RunCosts& costs, const std::string& step,
                       const std::string& memory) {
    table.rows.push_back(
        {name, format_count(costs.steps), step, format_count(costs.tokens),
         format_or_dash(costs.wall_clock, format_seconds),
         costs.low ? fmt::format("{} to {}", format_seconds(*costs.low), format_seconds(*costs.high)) : "–",
         hours_text(costs.device_hours), memory});
  };
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const Prediction& step = answers[i].prediction;
    row(stages[i].name, run.stages[i], step.latency ? format_seconds(*step.latency) : status_name(step.status),
        format_bytes(step.memory.total()));
  }
  row("all", run.total, "–", "–");
  return table;
}

std::string run_text(const std::vector<TrainingStage>& stages, const std::vector<Answer>& answers,
                     const TrainingRun& run, Format format) {
  std::string text = render_table(run_table(stages, answers, run), format);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const Prediction& step = answers[i].prediction;
    const std::string line = step.latency ? training_line(step) : step.reason;
    if (!line.empty()) text += fmt::format("{}{}: {}\n", i == 0 ? "\n" : "", stages[i].name, line);
  }
  return text;
}

int run_train(const TrainOptions& options) {
  const Format format = parse_format(options.query.format);
  if (options.stages.empty()) {
    throw UsageError("--stage", "is missing", "write e.g. --stage \"--steps 1000 --freeze router\"");
  }
  const std::int64_t rounds = parse_count(options.rounds, "--rounds", 1, 1'000'000);
  const DataFolders folders = find_data_folders(options.query.data);
  Machines machines(folders);
  std::vector<TrainingStage> stages;
  std::vector<Answer> answers;
  for (const std::string& text : options.stages) {
    const AskedStage asked = parse_stage(options, text, stages.size() + 1);
    answers.push_back(machines.answer(asked.query));
    const Answer& answer = answers.back();
    stages.push_back({asked.name, asked.steps, step_tokens(answer.query.workload),
                      devices_of(answer.query.deployment, answer.query.workload), answer.prediction});
  }
  const TrainingRun run = training_run(stages, rounds);
  show_warnings(answers);
  switch (format) {
    case Format::table:
    case Format::md: write_stdout(run_text(stages, answers, run, format)); break;
    case Format::csv: {
      std::vector<Json> records;
      for (std::size_t i = 0; i < stages.size(); ++i) {
        records.push_back(costs_json(run.stages[i]));
        records.back()["name"] = stages[i].name;
      }
      write_stdout(render_csv(records));
      break;
    }
    case Format::json:
    case Format::jsonl: write_stdout(render_records({run_json(stages, answers, run, rounds)}, format, true)); break;
  }
  return 0;
}

}  // namespace

void add_train_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<TrainOptions>();
  const Command command = app.add_subcommand("train", "Wall clock and device hours of a training schedule, by stages");
  command
      .add_option("--stage", options->stages,
                  "Steps of one kind: --steps N (1 to 1e12), --name NAME, and flags of predict that this stage has "
                  "instead of the run's; repeat for the next stage")
      .type_name("\"FLAGS\"")
      .one_word_each()
      .not_empty();
  add_text_option(command, "--rounds", options->rounds, "N", "All stages again and again (default 1)");
  add_query_options(command, options->query);
  command.footer(
      "A step is that of `predict --phase train`. Stages may also be evaluations: --phase prefill is the forward "
      "pass,\n"
      "--attack pgd:10 ten forward and backward passes.\n\n"
      "Examples:\n"
      "  moecast train --model olmoe-1b-7b --batch 4 --prompt 512 --stage \"--name experts --steps 2000 --train-only "
      "experts\" --stage \"--name joint --steps 500\"\n"
      "  moecast train --model olmoe-1b-7b --batch 4 --prompt 512 --rounds 100 --stage \"--steps 10 --train-only "
      "router\" "
      "--stage \"--steps 10 --freeze router\"\n");
  command.callback([options, &line] { line.run = [options] { return run_train(*options); }; });
}

}  // namespace moecast
