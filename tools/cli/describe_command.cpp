#include <memory>
#include <nlohmann/json.hpp>

#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "tools/cli/command.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/model_choice.h"
#include "tools/cli/output.h"

namespace moecast {
namespace {

struct DescribeOptions {
  std::string model;
  std::string data;
};

int run_describe(const DescribeOptions& options) {
  if (options.model.empty()) {
    throw UsageError("describe", "the model is missing", "a name of moecast list models, a config.json or an own file");
  }
  write_stdout(dump_json(write_architecture(load_model(options.model, find_data_folders(options.data)))));
  return 0;
}

}  // namespace

void add_describe_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<DescribeOptions>();
  const Command command = app.add_subcommand("describe", "Print a model as an own description, to be edited and used");
  add_text_option(command, "model", options->model, "NAME|FILE", "Name (moecast list models), config.json or own file");
  add_text_option(command, "--data", options->data, "FOLDER", "Data folder of moecast (models/zoo, hwprofiles)");
  command.footer("Examples:\n  moecast describe mixtral-8x7b\n  moecast describe ./config.json > mine.json\n");
  command.callback([options, &line] { line.run = [options] { return run_describe(*options); }; });
}

}  // namespace moecast
