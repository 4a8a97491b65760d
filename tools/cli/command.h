#pragma once
#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace moecast {

/// What a command line asks for: filled while it is parsed, carried out afterwards.
struct CommandLine {
  std::function<int()> run;  ///< of the chosen command; @return the exit code
  char** argv = nullptr;     ///< as main got it
};

/// A flag or argument of a command, to be told more about.
class Flag {
 public:
  explicit Flag(CLI::Option& option) : option_(&option) {}
  Flag type_name(const std::string& text) const;  ///< what its value is called in the help
  Flag group(const std::string& heading) const;   ///< of the help
  Flag description(const std::string& text) const;
  Flag required() const;
  Flag not_empty() const;      ///< its text must say something
  Flag one_word_each() const;  ///< of a list: it is repeated for the next one
  Flag take_all() const;       ///< every word that follows, however often it is given

 private:
  CLI::Option* option_;
};

/// A command of the program and its flags; a handle, to be copied. CLI11 stays behind it: every file that includes its
/// headers takes ten seconds longer to compile.
class Command {
 public:
  explicit Command(CLI::App& app) : app_(&app) {}
  [[nodiscard]] Command add_subcommand(const std::string& name, const std::string& description) const;
  Flag add_option(const std::string& name, std::string& value, const std::string& help) const;
  Flag add_option(const std::string& name, std::vector<std::string>& values, const std::string& help) const;
  Flag add_flag(const std::string& name, bool& value, const std::string& help) const;
  [[nodiscard]] Flag get_option(const std::string& name) const;
  /// Below the flags in the help: examples.
  void footer(const std::string& text) const;
  /// What happens when the command was chosen.
  void callback(std::function<void()> chosen) const;
  void require_subcommand(int count) const;
  /// The words behind it are not its own, not even --help.
  void pass_all_words() const;
  [[nodiscard]] std::vector<std::string> remaining() const;
  /// How often a flag was given.
  [[nodiscard]] std::size_t count(const std::string& flag) const;
  /// Every flag that was given, "--name", with what was typed after it: words of a flag that was repeated joined by
  /// spaces, "true" where it takes none.
  [[nodiscard]] std::map<std::string, std::string> given() const;
  /// Whether one of its own commands was chosen.
  [[nodiscard]] bool has_subcommand() const;

 private:
  CLI::App* app_;
};

/// Each adds one command and its options to `app`, and sets `line.run` when it is chosen.
void add_list_command(const Command& app, CommandLine& line);
void add_doctor_command(const Command& app, CommandLine& line);
void add_predict_command(const Command& app, CommandLine& line);
void add_explain_command(const Command& app, CommandLine& line);
void add_compare_command(const Command& app, CommandLine& line);
void add_sweep_command(const Command& app, CommandLine& line);
void add_trace_command(const Command& app, CommandLine& line);
void add_exchange_command(const Command& app, CommandLine& line);
void add_routing_command(const Command& app, CommandLine& line);
void add_profile_command(const Command& app, CommandLine& line);
void add_calibrate_command(const Command& app, CommandLine& line);
void add_validate_command(const Command& app, CommandLine& line);
void add_validate_kernels_command(const Command& validate, CommandLine& line);
void add_validate_steps_command(const Command& validate, CommandLine& line);
void add_validate_serving_command(const Command& validate, CommandLine& line);
void add_recommend_command(const Command& app, CommandLine& line);
void add_serve_command(const Command& app, CommandLine& line);
void add_search_command(const Command& app, CommandLine& line);
void add_import_command(const Command& app, CommandLine& line);
void add_describe_command(const Command& app, CommandLine& line);
void add_train_command(const Command& app, CommandLine& line);

/// Adds a text option; the command parses it, so that every wrong value gives an error of the same form.
void add_text_option(const Command& command, const std::string& name, std::string& value, const std::string& type,
                     const std::string& help);

/// Parses words that stand inside a value as flags of a command, with the errors of the command line.
///
/// @param text     as a shell would split it. @param command  whose --help lists what is allowed.
/// @param add      adds the flags. @return those that were given, "--name". @throws UsageError
std::set<std::string> parse_words(const std::string& text, const std::string& command,
                                  const std::function<void(const Command&)>& add);

/// "a,b,c" -> {"a", "b", "c"}. @throws UsageError on an empty element.
std::vector<std::string> split_list(const std::string& text, const std::string& where);

}  // namespace moecast
