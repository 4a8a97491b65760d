#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "tools/cli/command.h"
#include "tools/cli/machine_checks.h"
#include "tools/cli/output.h"
#include "tools/cli/parquet_rows.h"
#include "tools/cli/python_package.h"
#include "tools/cli/restart.h"

namespace moecast {
namespace {

const char* status_word(CheckStatus status) {
  switch (status) {
    case CheckStatus::ok: return "ok";
    case CheckStatus::warning: return "warning";
    case CheckStatus::missing: return "missing";
  }
  return "unknown";
}

/// What searches and writes Parquet.
Check package_check() {
  Check check{"python package", CheckStatus::missing, python_program() + " has no moecast with pyarrow",
              "searches and Parquet: pip install '.[search,parquet]', and MOECAST_PYTHON=/path/to/python3"};
  try {
    if (has_parquet()) check = {"python package", CheckStatus::ok, python_program() + ", with pyarrow", ""};
  } catch (const DeviceError& error) {
    check.found = error.what();
  }
  return check;
}

std::vector<Check> all_checks() {
  std::vector<Check> checks = machine_checks();
  checks.push_back(noise_check());
  for (const auto& more : {backend_checks(), optional_checks()}) checks.insert(checks.end(), more.begin(), more.end());
  checks.push_back(package_check());
  return checks;
}

/// One line a check, and what to do below it.
std::string as_text(const std::vector<Check>& checks) {
  std::string text;
  for (const Check& check : checks) {
    text += fmt::format("{:<8} {:<18} {}\n", status_word(check.status), check.name, check.found);
    if (!check.advice.empty()) text += fmt::format("{:>27} {}\n", "->", check.advice);
  }
  return text;
}

int run_doctor(const std::string& format_text) {
  const Format format = parse_format(format_text);
  const std::vector<Check> checks = all_checks();
  if (format == Format::table) {
    write_stdout(as_text(checks));
    return 0;
  }
  if (format == Format::md) {
    Table table{{"what", "status", "found", "what to do"}, {}};
    for (const Check& check : checks) {
      table.rows.push_back({check.name, status_word(check.status), check.found, check.advice});
    }
    write_stdout(render_table(table, format));
    return 0;
  }
  std::vector<Json> records;
  for (const Check& check : checks) {
    records.push_back(Json{{"name", check.name},
                           {"status", status_word(check.status)},
                           {"found", check.found},
                           {"advice", check.advice.empty() ? Json() : Json(check.advice)}});
  }
  write_stdout(render_records(records, format, false));
  return 0;
}

}  // namespace

void add_doctor_command(const Command& app, CommandLine& line) {
  const auto format = std::make_shared<std::string>("table");
  const Command command =
      app.add_subcommand("doctor", "Say what this build and machine can do, and mend what is missing");
  add_text_option(command, "--format", *format, "FORMAT", "table (default), md, csv, json, jsonl");
  command.footer("Examples:\n  moecast doctor\n  moecast doctor --format json\n");
  command.callback([format, &line] {
    line.run = [format, &line] {
      restart_with_openblas_core(line.argv);
      return run_doctor(*format);
    };
  });
}

}  // namespace moecast
