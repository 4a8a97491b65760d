#include "tools/cli/cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "models/core/error.h"
#include "models/core/json.h"
#include "tools/cli/command.h"
#include "tools/cli/output.h"

namespace moecast {
namespace {

constexpr const char* kExitCodes =
    "Exit codes: 0 done, 1 the answer is no (a bar was missed), 2 wrong usage, 3 bad input file,\n"
    "4 device unavailable (full disk included), 70 a bug of ours, 130 interrupted (what was measured is kept).\n";

constexpr const char* kExamples =
    "Examples:\n"
    "  moecast profile --budget 90s                       measure this machine\n"
    "  moecast predict --model mixtral-8x7b --batch 8     how long one step takes on it\n"
    "  moecast validate --hw this-machine --cases 40      predicted against really executed\n";

[[noreturn]] void refuse_unknown(const std::string& what, const std::string& text,
                                 const std::vector<std::string>& known, const std::string& help) {
  const std::vector<std::string_view> names(known.begin(), known.end());
  const auto near = nearest_name(text, names);
  throw UsageError(text, "unknown " + what, near ? fmt::format("did you mean \"{}\"?", *near) : help);
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

/// Refuses an unknown command or long option with the nearest known one, before anything else is complained about.
/// @param path  how `app` is called.
void refuse_typos(const CLI::App& app, const std::vector<std::string>& arguments, std::string path) {
  const CLI::App* command = &app;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") return;
    if (!argument.starts_with('-')) {
      const std::vector<const CLI::App*> known = command->get_subcommands([](const CLI::App*) { return true; });
      if (known.empty()) continue;
      std::vector<std::string> names;
      for (const CLI::App* sub : known) names.push_back(sub->get_name());
      const auto found = std::find(names.begin(), names.end(), argument);
      if (found == names.end()) refuse_unknown("command", argument, names, path + " --help lists the commands");
      command = known[static_cast<std::size_t>(found - names.begin())];
      path += " " + argument;
      continue;
    }
    if (command->get_prefix_command()) return;  // the rest is somebody else's
    if (!argument.starts_with("--")) continue;
    const std::size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const CLI::Option* option = command->get_option_no_throw(name);
    if (option == nullptr) {
      refuse_unknown("option", name, option_names(*command), path + " --help lists the options");
    }
    if (equals == std::string::npos && option->get_items_expected_min() > 0) ++i;
  }
}

/// The command that was chosen, and how it is called.
std::pair<const CLI::App*, std::string> innermost(const CLI::App& app) {
  std::pair<const CLI::App*, std::string> chosen{&app, "moecast"};
  while (!chosen.first->get_subcommands().empty()) {
    chosen.first = chosen.first->get_subcommands().front();
    chosen.second += " " + chosen.first->get_name();
  }
  return chosen;
}

/// @param help  the command that lists what is allowed.
[[noreturn]] void refuse_parse(const CLI::App& app, const CLI::ParseError& error, const std::string& help) {
  const std::string text = error.what();
  const std::vector<std::string> extra = app.remaining(true);
  if (!extra.empty()) throw UsageError(extra.front(), "was not expected here", help);
  const std::size_t colon = text.starts_with("--") ? text.find(": ") : std::string::npos;
  if (colon == std::string::npos) throw UsageError("", text, help);
  const std::string flag = text.substr(0, colon);
  if (text.find("At Most 1 required", colon) != std::string::npos) {
    throw UsageError(flag, "was given more than once", "give it once");
  }
  throw UsageError(flag, text.substr(colon + 2), help);
}

int parse_and_run(CLI::App& app, CommandLine& line, int argc, char** argv) {
  refuse_typos(app, std::vector<std::string>(argv + 1, argv + argc), "moecast");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    write_stdout(innermost(app).first->help());
    return 0;
  } catch (const CLI::CallForVersion& version) {
    write_stdout(std::string(version.what()) + "\n");
    return 0;
  } catch (const CLI::ParseError& error) {
    refuse_parse(app, error, innermost(app).second + " --help");
  }
  if (!line.run) {
    fmt::print(stderr, "{}", app.help());
    return 2;
  }
  return line.run();
}

/// @param fallback  how to go on where the error does not say it itself.
int report(const Error& error, int code, const char* fallback = "") {
  fmt::print(stderr, "error: {}\n", printable(error.what()));
  const std::string hint = error.hint().empty() ? fallback : error.hint();
  if (!hint.empty()) fmt::print(stderr, "hint: {}\n", printable(hint));
  return code;
}

}  // namespace

std::set<std::string> parse_words(const std::string& text, const std::string& command,
                                  const std::function<void(const Command&)>& add) {
  CLI::App app("", command);
  app.set_help_flag("");
  add(Command(app));
  std::vector<std::string> words = CLI::detail::split_up(text);
  refuse_typos(app, words, command);
  std::ranges::reverse(words);  // as CLI11 takes them
  try {
    app.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    refuse_parse(app, error, command + " --help");
  }
  std::set<std::string> given;
  for (const std::string& name : option_names(app)) {
    if (app.count(name) > 0) given.insert(name);
  }
  return given;
}

int run_cli(int argc, char** argv) {
  try {
    CLI::App app("Predicts how long Mixture-of-Experts models take on hardware that has been measured.", "moecast");
    app.footer(std::string(kExamples) + "\n" + kExitCodes);
    app.set_version_flag("--version", fmt::format("moecast {} ({})", MOECAST_VERSION, MOECAST_BUILD_TYPE));
    const Command root(app);
    CommandLine line;
    line.argv = argv;
    add_predict_command(root, line);
    add_explain_command(root, line);
    add_compare_command(root, line);
    add_sweep_command(root, line);
    add_trace_command(root, line);
    add_routing_command(root, line);
    add_exchange_command(root, line);
    add_describe_command(root, line);
    add_list_command(root, line);
    add_profile_command(root, line);
    add_recommend_command(root, line);
    add_serve_command(root, line);
    add_search_command(root, line);
    add_validate_command(root, line);
    add_calibrate_command(root, line);
    add_import_command(root, line);
    add_doctor_command(root, line);
    add_train_command(root, line);
    return parse_and_run(app, line, argc, argv);
  } catch (const UsageError& error) {
    return report(error, 2, "moecast COMMAND --help says what each flag takes");
  } catch (const InputError& error) {
    return report(error, 3, "correct the file there, or name another one");
  } catch (const DeviceError& error) {
    return report(error, 4, "moecast doctor says what this machine can do");
  } catch (const std::bad_alloc&) {
    return report(DeviceError("", "out of memory", "close other programs or ask for smaller sizes"), 4);
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: this is a bug in moecast: {}\nhint: please report it with the command line\n",
               error.what());
    return 70;
  }
}

}  // namespace moecast
