#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "models/architecture/dense_twin.h"
#include "models/core/error.h"
#include "tools/cli/command.h"
#include "tools/cli/comparison_report.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/output.h"
#include "tools/cli/query_answers.h"
#include "tools/cli/query_options.h"
#include "tools/cli/saved_answer.h"
#include "tools/cli/service_comparison.h"

namespace moecast {
namespace {

struct CompareOptions {
  QueryOptions query;
  std::string versus;
  std::vector<std::string> names;
};

constexpr const char* kLayerNumbers[] = {"--hidden", "--width", "--experts", "--top-k", "--tokens", "--shared-experts"};
constexpr const char* kModelNumbers[] = {"--batch", "--context", "--prompt", "--prefix", "--source", "--prefill-batch"};

/// True if B names one of these numbers itself.
template <std::size_t N>
bool names_any(const QueryOptions& typed, const char* const (&flags)[N]) {
  return std::ranges::any_of(flags, [&](const char* flag) { return !typed.numbers.at(flag).empty(); });
}

bool describes_layer(const QueryOptions& typed) {
  return names_any(typed, kLayerNumbers) || typed.gated || typed.no_gated || typed.pad ||
         !typed.capacity_factor.empty() || !typed.overflow.empty() || !typed.activation.empty();
}

/// What A said and B cannot mean any more, now that it says the opposite.
QueryOptions inherited(QueryOptions options, const QueryOptions& typed) {
  if (!typed.model.empty()) {
    for (const char* flag : kLayerNumbers) options.numbers[flag].clear();
    for (std::string* text : {&options.capacity_factor, &options.overflow, &options.activation, &options.rows}) {
      text->clear();
    }
    options.gated = options.no_gated = options.pad = false;
  }
  if (!options.model.empty() && describes_layer(typed)) {
    for (const char* flag : kModelNumbers) options.numbers[flag].clear();
    options.model.clear();
    options.phase.clear();
  }
  if (!typed.phase.empty()) drop_idle_numbers(options, typed.phase, nullptr);
  if (!typed.load.empty()) options.rows.clear();
  if (!typed.rows.empty()) options.load.clear();
  if (typed.gated) options.no_gated = false;
  if (typed.no_gated) options.gated = false;
  return options;
}

/// A's options with what stands after --versus in their place.
QueryOptions second_question(const CompareOptions& options) {
  constexpr const char* kCommand = "moecast predict";
  if (options.versus.find_first_not_of(' ') == std::string::npos) {
    throw UsageError("--versus", "is missing", "write the flags that the second question changes: --versus \"--ep 8\"");
  }
  const auto parse = [&](QueryOptions& into) {
    const auto given =
        parse_words(options.versus, kCommand, [&](const Command& flags) { add_query_options(flags, into); });
    for (const char* flag : {"--format", "--data"}) {
      if (given.contains(flag)) throw UsageError(flag, "is of the whole comparison", "write it before --versus");
    }
  };
  QueryOptions typed;
  typed.hw.clear();
  parse(typed);
  QueryOptions second = inherited(options.query, typed);
  parse(second);
  return second;
}

Answer answer_of(const QueryOptions& options) {
  const DataFolders folders = find_data_folders(options.data);
  const HardwareChoice hardware = choose_hardware(options.hw, folders);
  refuse_backend_typo(options.backend, hardware);
  std::vector<Query> queries = make_queries(with_usual_load(options, hardware.gpu), folders, hardware.threads);
  if (queries.size() != 1) {
    throw UsageError("", fmt::format("compare takes one question on each side, these ranges make {}", queries.size()),
                     "moecast sweep takes ranges");
  }
  complete_query(queries.front(), options, hardware);
  Prediction prediction = predict_query(*load_predictor(hardware, folders), queries.front(), options.model);
  return {std::move(queries.front()), std::move(prediction)};
}

/// "dense-flops" or "dense-parameters": A's question to a dense model.
std::optional<Matched> dense_versus(const std::string& versus) {
  return versus.starts_with("dense-") ? find_matched(versus.substr(6)) : std::nullopt;
}

/// The same work on the same ranks, experts replaced by one network for all tokens.
Answer answer_of_twin(const CompareOptions& options, const Answer& first, Matched matched) {
  const DataFolders folders = find_data_folders(options.query.data);
  const HardwareChoice hardware = choose_hardware(options.query.hw, folders);
  Query query = first.query;
  query.architecture = dense_twin(query.architecture, matched, query.deployment.tp);
  query.deployment.ep = 1;
  query.deployment.moe_tp.reset();
  query.workload.load = {};
  query.workload.rows_per_expert.clear();
  std::erase_if(query.inputs, [](const InputValue& input) {
    return input.name == "ep" || input.name == "moe_tp" || input.name == "load" || input.name == "rows_per_expert";
  });
  for (InputValue& input : query.inputs) {
    if (input.name == "model") input.value = query.architecture.name;
  }
  Prediction prediction = predict_query(*load_predictor(hardware, folders), query, options.query.model);
  return {std::move(query), std::move(prediction)};
}

/// B, whose errors say that they are its own.
Answer answer_of_second(const CompareOptions& options) try {
  return answer_of(second_question(options));
} catch (const UsageError& error) {
  if (error.where() == "--versus") throw;
  throw UsageError(error.where().empty() ? "--versus" : "--versus: " + error.where(), error.problem(), error.hint());
}

void show(const ComparedAnswers& compared, Format format) {
  show_warnings({compared.first, compared.second});
  switch (format) {
    case Format::table:
    case Format::md: write_stdout(comparison_text(compared, format)); break;
    case Format::csv: write_stdout(render_csv(comparison_records(compared))); break;
    case Format::json:
    case Format::jsonl: write_stdout(render_records({comparison_json(compared)}, format, true)); break;
  }
}

ComparedAnswers compared_answers(Answer first, Answer second) {
  ComparedAnswers compared{std::move(first), std::move(second), {}, {}, {}};
  compared.comparison = compare(compared.first.prediction, compared.second.prediction);
  compared.first_document = std::make_shared<const Json>(prediction_json(compared.first));
  compared.second_document = std::make_shared<const Json>(prediction_json(compared.second));
  return compared;
}

using Document = std::shared_ptr<const Json>;

int compare_saved(const std::vector<std::string>& files, const Document& first, const Document& second, Format format) {
  if (is_service(*first) != is_service(*second)) {
    throw InputError(files[is_service(*first) ? 1 : 0], "is a step, the other file is a service",
                     "save both with predict, or both with serve");
  }
  if (is_service(*first)) {
    const ComparedServices services(first, files[0], second, files[1]);
    if (format == Format::table || format == Format::md) {
      write_stdout(services.text(format));
    } else if (format == Format::csv) {
      write_stdout(render_csv(services.records()));
    } else {
      write_stdout(render_records({services.json()}, format, true));
    }
    return 0;
  }
  ComparedAnswers compared = compared_answers(read_answer(*first, files[0]), read_answer(*second, files[1]));
  compared.first_document = first;
  compared.second_document = second;
  show(compared, format);
  return 0;
}

/// Two saved answers; or two models, asked what the flags say.
int compare_two(const CompareOptions& options, const std::set<std::string>& given, Format format) {
  const std::vector<std::string>& names = options.names;
  if (names.size() != 2)
    throw UsageError(names.front(), "needs a second one beside it", "moecast compare A.json B.json");
  if (given.contains("--versus")) {
    throw UsageError("--versus", "contradicts a second file or model", "leave one of them out");
  }
  const Document first = find_saved_answer(names[0]);
  const Document second = find_saved_answer(names[1]);
  if ((first == nullptr) != (second == nullptr)) {
    throw UsageError(names[first ? 1 : 0], "is no saved answer, " + names[first ? 0 : 1] + " is one",
                     "two files of predict --format json, or two models");
  }
  if (first) {
    for (const std::string& flag : given) {
      if (flag != "--format") {
        throw UsageError(flag, "means nothing to answers that were saved", "ask anew: --versus \"FLAGS\"");
      }
    }
    return compare_saved(names, first, second, format);
  }
  if (given.contains("--model")) throw UsageError("--model", "contradicts two models", "leave one of them out");
  QueryOptions a = options.query;
  a.model = names[0];
  QueryOptions b = options.query;
  b.model = names[1];
  show(compared_answers(answer_of(a), answer_of(b)), format);
  return 0;
}

int run_compare(const CompareOptions& options, const std::set<std::string>& given) {
  const Format format = parse_format(options.query.format);
  if (!options.names.empty()) return compare_two(options, given, format);
  Answer first = answer_of(options.query);
  const std::optional<Matched> matched = dense_versus(options.versus);
  Answer second = matched ? answer_of_twin(options, first, *matched) : answer_of_second(options);
  show(compared_answers(std::move(first), std::move(second)), format);
  return 0;
}

}  // namespace

void add_compare_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<CompareOptions>();
  const Command command =
      app.add_subcommand("compare", "Two answers side by side, and what their difference is made of");
  command.add_option("names", options->names, "two files of predict (or serve) --format json; or two models")
      .type_name("A B");
  add_text_option(command, "--versus", options->versus, "\"FLAGS\"",
                  "Flags of predict that the second question (B) has instead of the first one's (A); or dense-flops, "
                  "dense-parameters: a dense model of equal FLOPs a token, or of equal weights");
  add_query_options(command, options->query);
  command.footer(
      "Stages stand in the order of how much of the difference they explain. A and B are undecided where their 90 % "
      "intervals overlap. What does not fit or is outside of what was measured is an answer, with its reason.\n\n"
      "Examples:\n"
      "  moecast compare tp8.json ep8.json                      saved with predict, or with serve, --format json\n"
      "  moecast compare mixtral-8x7b ./config.json --hw h200-sxm --tp 2 --batch 8\n"
      "  moecast compare --model qwen3-235b-a22b --hw h200-sxm --tp 8 --batch 32 --versus \"--tp 1 --ep 8 --dp 8\"\n"
      "  moecast compare --model deepseek-v3 --hw h200-sxm --tp 8 --ep 8 --batch 64 --versus \"--hw b200-sxm\"\n"
      "  moecast compare --model olmoe-1b-7b --batch 8 --versus \"--phase prefill --prompt 256\" --format json\n"
      "  moecast compare --hidden 1024 --width 2048 --experts 16 --top-k 2 --tokens 64 --versus \"--top-k 4\"\n"
      "  moecast compare --model mixtral-8x7b --hw h200-sxm --tp 2 --batch 8 --versus dense-flops\n");
  command.callback([command, options, &line] {
    line.run = [command, options] {
      std::set<std::string> flags;
      for (const auto& [name, text] : command.given()) {
        if (name.starts_with("--")) flags.insert(name);
      }
      return run_compare(*options, flags);
    };
  });
}

}  // namespace moecast
