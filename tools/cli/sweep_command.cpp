#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"
#include "tools/cli/output.h"
#include "tools/cli/parquet_rows.h"
#include "tools/cli/progress_bar.h"
#include "tools/cli/query_options.h"
#include "tools/cli/sweep_points.h"
#include "tools/loop/interrupt.h"
#include "tools/loop/sweep.h"
#include "tools/loop/sweep_file.h"

namespace moecast {
namespace {

struct SweepOptions {
  QueryOptions query;
  std::string out;
  std::string jobs;
  bool force = false;
};

/// csv or jsonl, or Parquet, which is made of csv at the end.
struct RowsForm {
  Format rows = Format::csv;
  bool parquet = false;
};

/// As --format says, else as the file is called.
RowsForm rows_form(const SweepOptions& options) {
  const std::string& text = options.query.format;
  if (text == "parquet") {
    if (options.out.empty()) throw UsageError("--format", "parquet needs a file", "write -o FILE.parquet");
    return {Format::csv, true};
  }
  if (text.empty()) {
    if (options.out.empty() || options.out.ends_with(".csv")) return {Format::csv};
    if (options.out.ends_with(".jsonl")) return {Format::jsonl};
    if (options.out.ends_with(".parquet")) return {Format::csv, true};
    throw UsageError("-o", fmt::format("\"{}\" ends neither in .csv nor in .jsonl nor in .parquet", options.out),
                     "or write --format csv, jsonl or parquet");
  }
  const Format format = parse_format(text);
  if (format == Format::csv || format == Format::jsonl) return {format};
  throw UsageError("--format", fmt::format("a sweep is not written as {}", text), "write csv, jsonl or parquet");
}

/// All that the rows depend on, as it was typed: what an unfinished file must agree with.
Json question_of(const std::map<std::string, std::string>& given, const RowsForm& form, std::size_t points) {
  Json question{{"moecast", MOECAST_VERSION},
                {"format", form.parquet               ? "parquet"
                           : form.rows == Format::csv ? "csv"
                                                      : "jsonl"}};
  for (const auto& [flag, text] : given) {
    if (flag != "--out" && flag != "--jobs" && flag != "--force" && flag != "--format") question[flag] = text;
  }
  question["points"] = points;
  return question;
}

/// Rows of points [begin, end) in the form that is written. @param header  also the line of the columns.
std::string rows_text(const SweepPoints& points, std::size_t begin, std::size_t end, Format format, bool header) {
  std::vector<Json> rows;
  rows.reserve(end - begin);
  for (std::size_t i = begin; i < end; ++i) rows.push_back(points.row(i));
  std::string text = render_records(rows, format, false);
  // Every row has the same keys, so every block begins with the same line.
  if (format == Format::csv && !header) text.erase(0, text.find('\n') + 1);
  return text;
}

std::string header_of(const SweepPoints& points, Format format) {
  if (format != Format::csv) return {};
  const std::string text = render_csv({points.blank_row()});
  return text.substr(0, text.find('\n') + 1);
}

/// Time left, once the sweep has taken a while.
class SweepProgress {
 public:
  SweepProgress(std::size_t first, std::size_t points) : first_(first), points_(points) {}
  void operator()(std::size_t done) {
    const Clock::time_point now = Clock::now();
    if (now - start_ < kQuiet || now - drawn_ < kRedraw || done == first_) return;
    drawn_ = now;
    const double spent = std::chrono::duration<double>(now - start_).count();
    const double left = spent / static_cast<double>(done - first_) * static_cast<double>(points_ - done);
    bar_.update(fmt::format("sweeping {} points", points_), static_cast<double>(done) / static_cast<double>(points_),
                Seconds(left));
  }
  void clear() { bar_.clear(); }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kQuiet = std::chrono::seconds(2);
  static constexpr auto kRedraw = std::chrono::milliseconds(200);
  std::size_t first_, points_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point drawn_;
  ProgressBar bar_;
};

/// The row before the first new one must be what the flags give, or the file would hold answers of two calibrations.
void check_last_row(const SweepFile& file, SweepPoints& points, Format format) {
  const std::size_t kept = file.kept_rows();
  if (kept == 0) return;
  const char* hint = "--force starts anew; or choose another -o";
  if (kept > points.size()) throw InputError(file.part(), "has more rows than these flags give", hint);
  const std::string expected = rows_text(points, kept - 1, kept, format, false);
  points.reset_counts();
  if (expected == file.last_row()) return;
  throw InputError(file.part(), fmt::format("row {} is not what is answered now: profile or program changed", kept),
                   hint);
}

/// @param first  rows that an earlier run made.
void report(const SweepPoints& points, const std::string& file, std::size_t first) {
  for (const std::string& text : points.notes()) note("note: " + text);
  for (const std::string& text : points.warnings()) warn(text);
  std::string text = first > 0 ? fmt::format("{} were there", first) : "";
  bool any_ok = first > 0;
  for (const auto& [status, count] : points.counts()) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, status);
    any_ok = any_ok || status != "invalid";
  }
  if (!text.empty() && !file.empty()) note(fmt::format("{}: {}", file, text));
  if (!text.empty() && !any_ok) warn("every point is invalid, the first because " + points.invalid_reason());
}

int run_sweep_command(const SweepOptions& options, const std::map<std::string, std::string>& given) {
  const RowsForm form = rows_form(options);
  const Format format = form.rows;
  const auto cores = static_cast<std::int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  const std::int64_t jobs = options.jobs.empty() ? cores : parse_count(options.jobs, "--jobs", 1, 4096);
  if (options.force && options.out.empty())
    throw UsageError("--force", "means nothing without a file", "write -o FILE");
  const InterruptGuard guard;
  if (form.parquet) require_parquet();
  SweepPoints points(options.query, find_data_folders(options.query.data));
  const std::string header = header_of(points, format);
  std::optional<SweepFile> file;
  if (options.out.empty()) {
    write_stdout(header);
  } else {
    file.emplace(options.out, question_of(given, form, points.size()), header, options.force);
    check_last_row(*file, points, format);
  }
  const std::size_t first = file ? file->kept_rows() : 0;
  if (first > 0) note(fmt::format("{} of {} rows are there already", first, points.size()));
  SweepProgress progress(first, points.size());
  Sweep sweep;
  sweep.points = points.size();
  sweep.first = first;
  sweep.threads = static_cast<int>(jobs);
  sweep.rows = [&](std::size_t begin, std::size_t end) { return rows_text(points, begin, end, format, false); };
  sweep.write = [&](std::string_view rows) { file ? file->append(rows) : write_stdout(rows); };
  sweep.progress = std::ref(progress);
  const std::size_t done = run_sweep(sweep, InterruptGuard::flag());
  progress.clear();
  if (done < points.size()) {
    note(fmt::format("interrupted after {} of {} points{}", done, points.size(),
                     file ? fmt::format(": {} is kept, the same command goes on from there", file->part()) : ""));
    return 130;
  }
  if (file && form.parquet) {
    const ParquetColumns columns{points.text_columns(), points.whole_columns()};
    file->finish([&] { write_parquet(file->part(), options.out, columns, file->question()); });
  } else if (file) {
    file->finish();
  }
  report(points, options.out, first);
  return 0;
}

}  // namespace

void add_sweep_command(const Command& app, CommandLine& line) {
  const auto options = std::make_shared<SweepOptions>();
  const Command command = app.add_subcommand("sweep", "Answers for every combination of ranges and lists, to a file");
  options->query.format.clear();
  command.add_option("-o,--out", options->out, "File to write: .csv, .jsonl or .parquet (default: standard output)")
      .type_name("FILE")
      .not_empty();
  add_text_option(command, "--jobs", options->jobs, "N", "Threads (default: all cores); rows are the same with any");
  command.add_flag("--force", options->force, "Replace the file, and forget what is unfinished");
  add_query_options(command, options->query);
  command.get_option("--format").description("csv, jsonl or parquet (default: as the file is called, else csv)");
  command.footer(
      "Numeric flags take ranges: 1,8,64 or 1-64*2 or 1-8. --model, --hw, --backend, --load, --dtype, --strategy, "
      "--capacity-factor, --overflow, --activation, --offload, --optimizer, --recompute and --phase take lists: "
      "a,b,c.\n"
      "A row a combination: what varies, status (ok, does_not_fit, outside_range, invalid) and reason, and what "
      "predict "
      "--format csv gives, but expert-parallel efficiency, which costs another step: a row with --ep 1 is that step.\n"
      "Rows go to FILE.part, which becomes FILE at the end. The same command goes on after an interruption (exit code "
      "130). Parquet is made of them at the end, with types and units, by the Python package: pip install "
      "'.[parquet]'.\n\n"
      "Examples:\n"
      "  moecast sweep --model qwen3-235b-a22b --hw h100-sxm,h200-sxm --tp 1-8*2 --ep 1-8*2 --batch 1-256*2 -o q.csv\n"
      "  moecast sweep --model olmoe-1b-7b --phase decode,prefill --context 0-4096+512 --prompt 64-1024*2 -o o.jsonl\n"
      "  moecast sweep --hidden 512-4096*2 --width 512-8192*2 --experts 8-64*2 --top-k 1-8 --tokens 1-512*2 -o "
      "l.parquet\n"
      "  moecast sweep --model mixtral-8x7b --hw h200-sxm --batch 1,8,64 --load uniform,zipf:1.0\n");
  command.callback([command, options, &line] {
    line.run = [command, options] { return run_sweep_command(*options, command.given()); };
  });
}

}  // namespace moecast
