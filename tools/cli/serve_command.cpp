#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "models/core/error.h"
#include "tools/cli/command.h"
#include "tools/cli/output.h"
#include "tools/cli/progress_bar.h"
#include "tools/cli/serve_explain.h"
#include "tools/cli/serve_options.h"
#include "tools/cli/serve_report.h"
#include "tools/cli/serve_session.h"
#include "tools/loop/interrupt.h"

namespace moecast {
namespace {

class ServeProgress {
 public:
  /// @param share  of all that is to be simulated.
  void update(double share) {
    const double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    if (spent < kQuietSeconds || share <= 0) return;
    bar_.update("simulating requests", std::min(1.0, share), Seconds(std::max(0.0, spent / share - spent)));
  }
  void clear() { bar_.clear(); }

 private:
  static constexpr double kQuietSeconds = 2;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  ProgressBar bar_;
};

int run(const ServeOptions& options) {
  const InterruptGuard guard;
  const Format format = parse_format(options.format);
  const ServeSession session(options);
  if (options.explain && session.asked().size() != 1) {
    throw UsageError("--explain", "is of one load", "give a single --rate, --concurrency or --arrivals");
  }
  ServeProgress progress;
  std::vector<ServiceAnswer> answers;
  for (const Asked& asked : session.asked()) {
    std::optional<ServiceAnswer> answer = session.answer(asked, [&](double share) {
      progress.update((static_cast<double>(answers.size()) + share) / static_cast<double>(session.asked().size()));
    });
    if (!answer) {
      progress.clear();
      note("interrupted: nothing is printed, an answer needs all its requests");
      return 130;
    }
    answers.push_back(std::move(*answer));
  }
  progress.clear();
  for (const std::string& text : session.architecture().notes) note("note: " + text);
  std::set<std::string> shown;
  for (const ServiceAnswer& answer : answers) {
    for (const std::string& text : answer.warnings) {
      if (shown.insert(text).second) warn(text);
    }
  }
  const bool single = answers.size() == 1;
  std::vector<ServiceChange> changes;
  if (options.explain) {
    changes = change_service(options, [&](double share) { progress.update(share); });
    progress.clear();
    if (InterruptGuard::flag()) return 130;
  }
  if (single && (format == Format::table || format == Format::md)) {
    std::string text = service_text(answers.front(), format);
    if (options.explain) text += service_explanation(answers.front(), changes, format);
    write_stdout(text);
  } else if (format == Format::table || format == Format::md) {
    write_stdout(render_table(service_table(answers), format));
  } else {
    std::vector<Json> records;
    for (const ServiceAnswer& answer : answers) records.push_back(service_json(answer));
    if (options.explain) records.front()["explanation"] = service_explanation_json(answers.front(), changes);
    write_stdout(render_records(records, format, single));
  }
  return 0;
}

}  // namespace

void add_serve_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<ServeOptions>();
  const Command command =
      app.add_subcommand("serve", "TTFT and TPOT of a deployment under load, by simulating requests");
  add_serve_options(command, *options);
  command.footer(
      "Continuous batching: a step holds the running sequences and chunks of the prompts that wait, first come first\n"
      "served, urgent ones before; when the cache is full the latest sequence (that is not urgent) is thrown out and\n"
      "computed again. Latencies of a rate beyond saturation mean nothing: the status is unstable, and they are left\n"
      "out.\n\n"
      "Examples:\n"
      "  moecast serve --model qwen3-30b-a3b --hw h200-sxm --rate 8 --ttft 1s --tpot 20ms\n"
      "  moecast serve --model qwen3-235b-a22b --hw h200-sxm --tp 4 --ep 4 --dtype fp8_block --rate 1,2,4,8,16\n"
      "  moecast serve --model mixtral-8x7b --hw h100-sxm --tp 2 --concurrency 1-64*2 --format csv\n"
      "  moecast serve --model qwen3-30b-a3b --hw h200-sxm --tp 4 --rate 16 --explain\n"
      "  moecast serve --model qwen3-30b-a3b --hw h100-sxm --arrivals requests.csv --format json\n"
      "  moecast serve --model qwen3-30b-a3b --hw h200-sxm --rate 16 --urgent 0.1\n"
      "  moecast serve --model qwen3-30b-a3b --hw h200-sxm --rate 20 --prefill-instances 1 --decode-instances 2 "
      "--kv-link 50GB/s\n");
  command.callback([options, &line] { line.run = [options] { return run(*options); }; });
}

}  // namespace moecast
