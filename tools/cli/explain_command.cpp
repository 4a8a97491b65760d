#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "models/core/error.h"
#include "tools/cli/command.h"
#include "tools/cli/explain_report.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/output.h"
#include "tools/cli/profile_card.h"
#include "tools/cli/query_answers.h"
#include "tools/cli/query_options.h"
#include "tools/loop/relaxation.h"

namespace moecast {
namespace {

int run_explain(const QueryOptions& options) {
  const Format format = parse_format(options.format);
  const DataFolders folders = find_data_folders(options.data);
  if (asks_nothing(options) && options.hw != "this-machine") {
    write_stdout(profile_card(profile_folder(folders, options.hw), format));
    return 0;
  }
  const HardwareChoice hardware = choose_hardware(options.hw, folders);
  refuse_backend_typo(options.backend, hardware);
  std::vector<Query> queries = make_queries(with_usual_load(options, hardware.gpu), folders, hardware.threads);
  if (queries.size() != 1) {
    throw UsageError("", "explain answers one question, these ranges make " + std::to_string(queries.size()),
                     "moecast predict takes ranges");
  }
  complete_query(queries.front(), options, hardware);
  const std::unique_ptr<Predictor> predictor = load_predictor(hardware, folders);
  const Query& query = queries.front();
  const Answer answer{query, predict_query(*predictor, query, options.model)};
  const std::vector<Relaxation> relaxations =
      relax({*predictor, query.architecture, query.deployment, query.workload, query.without, hardware.gpu});
  show_warnings({answer});
  if (format == Format::table || format == Format::md) {
    write_stdout(explain_text(answer, relaxations, format));
  } else {
    write_stdout(render_records({explain_json(answer, relaxations)}, format, true));
  }
  return 0;
}

}  // namespace

void add_explain_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<QueryOptions>();
  const Command command = app.add_subcommand("explain", "Show where the predicted time goes and what was assumed");
  add_query_options(command, *options);
  command.footer(
      "Examples:\n"
      "  moecast explain --hw h200-sxm                     what a profile knows, and how well\n"
      "  moecast explain --model olmoe-1b-7b --phase prefill --prompt 256\n"
      "  moecast explain --hidden 1024 --width 2048 --experts 16 --top-k 2 --tokens 64 --format json\n");
  command.callback([options, &line] { line.run = [options] { return run_explain(*options); }; });
}

}  // namespace moecast
