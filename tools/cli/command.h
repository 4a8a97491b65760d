#pragma once
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace moecast {

/// What a command line asks for: filled while it is parsed, carried out afterwards.
struct CommandLine {
  std::function<int()> run;  ///< of the chosen command; @return the exit code
  char** argv = nullptr;     ///< as main got it
};

/// Each adds one command and its options to `app`, and sets `line.run` when it is chosen.
void add_list_command(CLI::App& app, CommandLine& line);
void add_doctor_command(CLI::App& app, CommandLine& line);
void add_predict_command(CLI::App& app, CommandLine& line);
void add_explain_command(CLI::App& app, CommandLine& line);
void add_compare_command(CLI::App& app, CommandLine& line);
void add_sweep_command(CLI::App& app, CommandLine& line);
void add_trace_command(CLI::App& app, CommandLine& line);
void add_profile_command(CLI::App& app, CommandLine& line);
void add_calibrate_command(CLI::App& app, CommandLine& line);
void add_validate_command(CLI::App& app, CommandLine& line);
void add_validate_kernels_command(CLI::App& validate, CommandLine& line);
void add_validate_steps_command(CLI::App& validate, CommandLine& line);
void add_validate_serving_command(CLI::App& validate, CommandLine& line);
void add_recommend_command(CLI::App& app, CommandLine& line);
void add_serve_command(CLI::App& app, CommandLine& line);
void add_search_command(CLI::App& app, CommandLine& line);
void add_import_command(CLI::App& app, CommandLine& line);
void add_describe_command(CLI::App& app, CommandLine& line);

/// Adds a text option; the command parses it, so that every wrong value gives an error of the same form.
void add_text_option(CLI::App& command, const std::string& name, std::string& value, const std::string& type,
                     const std::string& help);

/// Parses words that stand inside a value, with the errors of the command line.
/// @param command  whose --help lists what is allowed. @throws UsageError
void parse_words(CLI::App& app, std::vector<std::string> words, const std::string& command);

/// Check of CLI11 for texts that must say something: what is wrong, or nothing.
std::string not_empty(const std::string& given);

/// "a,b,c" -> {"a", "b", "c"}. @throws UsageError on an empty element.
std::vector<std::string> split_list(const std::string& text, const std::string& where);

}  // namespace moecast
