#include "tools/cli/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <utility>

#include "models/core/error.h"

namespace moecast {

Flag Flag::type_name(const std::string& text) const {
  option_->type_name(text);
  return *this;
}

Flag Flag::group(const std::string& heading) const {
  option_->group(heading);
  return *this;
}

Flag Flag::description(const std::string& text) const {
  option_->description(text);
  return *this;
}

Flag Flag::required() const {
  option_->required();
  return *this;
}

Flag Flag::not_empty() const {
  option_->check([](const std::string& given) { return std::string(given.empty() ? "is empty" : ""); });
  return *this;
}

Flag Flag::one_word_each() const {
  option_->allow_extra_args(false);
  return *this;
}

Flag Flag::take_all() const {
  option_->take_all();
  return *this;
}

Command Command::add_subcommand(const std::string& name, const std::string& description) const {
  return Command(*app_->add_subcommand(name, description));
}

Flag Command::add_option(const std::string& name, std::string& value, const std::string& help) const {
  return Flag(*app_->add_option(name, value, help));
}

Flag Command::add_option(const std::string& name, std::vector<std::string>& values, const std::string& help) const {
  return Flag(*app_->add_option(name, values, help));
}

Flag Command::add_flag(const std::string& name, bool& value, const std::string& help) const {
  return Flag(*app_->add_flag(name, value, help));
}

Flag Command::get_option(const std::string& name) const { return Flag(*app_->get_option(name)); }

void Command::footer(const std::string& text) const { app_->footer(text); }

void Command::callback(std::function<void()> chosen) const { app_->callback(std::move(chosen)); }

void Command::require_subcommand(int count) const { app_->require_subcommand(count); }

void Command::pass_all_words() const {
  app_->set_help_flag();
  app_->prefix_command();
}

std::vector<std::string> Command::remaining() const { return app_->remaining(); }

std::size_t Command::count(const std::string& flag) const { return app_->count(flag); }

std::map<std::string, std::string> Command::given() const {
  std::map<std::string, std::string> words;
  for (const CLI::Option* option : app_->get_options()) {
    if (option->count() == 0) continue;
    std::string& text = words[option->get_name()];
    for (const std::string& word : option->results()) text += (text.empty() ? "" : " ") + word;
  }
  return words;
}

bool Command::has_subcommand() const { return !app_->get_subcommands().empty(); }

void add_text_option(const Command& command, const std::string& name, std::string& value, const std::string& type,
                     const std::string& help) {
  command.add_option(name, value, help).type_name(type).not_empty();
}

std::vector<std::string> split_list(const std::string& text, const std::string& where) {
  std::vector<std::string> parts;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find(',', start), text.size());
    if (end == start) throw UsageError(where, fmt::format("\"{}\" has an empty element", text), "write e.g. a,b,c");
    parts.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

}  // namespace moecast
