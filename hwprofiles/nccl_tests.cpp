#include "hwprofiles/nccl_tests.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

constexpr std::array<std::string_view, 4> kOperations{"all_gather", "reduce_scatter", "alltoall", "all_reduce"};
constexpr double kLongestCall = 1e4;
constexpr double kSecondsPerMicrosecond = 1e-6;

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  constexpr std::string_view kBlank = " \t\r";
  for (std::size_t at = line.find_first_not_of(kBlank); at != std::string_view::npos;
       at = line.find_first_not_of(kBlank, at)) {
    const std::size_t end = std::min(line.find_first_of(kBlank, at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

template <typename Number>
std::optional<Number> parse(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::size_t> position(const std::vector<std::string_view>& words, std::string_view word) {
  const auto found = std::find(words.begin(), words.end(), word);
  if (found == words.end()) return std::nullopt;
  return static_cast<std::size_t>(found - words.begin());
}

/// What follows a word in a line; empty when it is not there.
std::string_view after(std::string_view line, std::string_view word) {
  const std::size_t at = line.find(word);
  if (at == std::string_view::npos) return {};
  const auto words = words_of(line.substr(at + word.size()));
  return words.empty() ? std::string_view() : words.front();
}

class Reader {
 public:
  Reader(const std::string& path, const NcclTestsOptions& options)
      : path_(path), options_(options), operation_(options.operation), version_(options.version) {}

  KernelTable read() {
    read_lines(path_, [this](std::uint64_t number, std::string_view line) { take(number, line); });
    if (size_at_ == kNowhere) {
      throw InputError(path_, "holds no table of nccl-tests",
                       "a line \"#  size  count  type ... time algbw busbw\" heads it");
    }
    return finish();
  }

 private:
  void take(std::uint64_t number, std::string_view line) {
    const std::vector<std::string_view> words = words_of(line);
    if (words.empty()) return;
    learn(line, words);
    if (words.front().front() == '#' || size_at_ == kNowhere || !parse<double>(words.front())) return;
    take_row(number, words);
  }

  /// What lines around the table say.
  void learn(std::string_view line, std::vector<std::string_view> words) {
    if (const std::string_view name = after(line, "Collective test starting:"); !name.empty() && operation_.empty()) {
      operation_ = name.substr(0, name.find("_perf"));
    }
    if (const std::string_view count = after(line, "graph:"); !count.empty()) eager_ = parse<int>(count) == 0 ? 1 : 0;
    // What NCCL itself says where NCCL_DEBUG asks for it: "NCCL version 2.18.5+cuda12.2".
    if (const std::string_view name = after(line, "NCCL version"); !name.empty() && version_.empty()) {
      version_ = name.substr(0, name.find('+'));
    }
    if (const std::string_view code = after(line, "nccl-library="); !code.empty() && version_.empty()) {
      // 21805 is 2.18.5
      if (const auto value = parse<int>(code)) {
        version_ = std::to_string(*value / 10000) + "." + std::to_string(*value / 100 % 100) + "." +
                   std::to_string(*value % 100);
      }
    }
    if (words.size() > 2 && words[0] == "#" && words[1] == "Rank") {
      ++ranks_;
      if (const std::string_view host = after(line, " on "); !host.empty()) hosts_.emplace(host);
    }
    if (words.front() == "#") words.erase(words.begin());
    if (line.find('#') == std::string_view::npos || !position(words, "size") || !position(words, "type")) return;
    if (const auto time = position(words, "time")) {
      size_at_ = *position(words, "size");
      type_at_ = *position(words, "type");
      time_at_ = *time;
      wrong_at_ = position(words, "#wrong").value_or(kNowhere);
    }
  }

  void take_row(std::uint64_t number, const std::vector<std::string_view>& words) {
    const auto wrong = [&](const std::string& what) {
      return InputError(path_ + ": line " + std::to_string(number), what, "it should fit the table's header");
    };
    if (words.size() <= std::max(type_at_, time_at_)) throw wrong("is cut short");
    ++report_.rows;
    const auto bytes = parse<double>(words[size_at_]);
    const auto microseconds = parse<double>(words[time_at_]);
    const auto element = parse_element_bytes(words[type_at_]);
    if (!element) throw wrong("\"" + std::string(words[type_at_].substr(0, 40)) + "\" is not a type");
    if (!bytes || !microseconds) throw wrong("holds text where numbers must be");
    const auto leave_out = [&](const char* reason) {
      if (++report_.left_out[reason] == 1) report_.examples[reason] = "line " + std::to_string(number);
    };
    // "N/A" where nobody checked.
    if (wrong_at_ < words.size() && parse<double>(words[wrong_at_]).value_or(0) > 0) {
      return leave_out("results that are wrong (#wrong)");
    }
    const double seconds = *microseconds * kSecondsPerMicrosecond;
    if (!(*bytes >= *element) || !(seconds > 0) || !(seconds < kLongestCall)) {
      return leave_out("size or time not above zero");
    }
    rows_.push_back({*bytes / *element, *element, seconds});
  }

  KernelTable finish() {
    if (operation_.empty()) {
      throw UsageError("--operation", "is needed: " + path_ + " does not name its collective",
                       "write --operation all_reduce");
    }
    if (std::find(kOperations.begin(), kOperations.end(), operation_) == kOperations.end()) {
      throw InputError(path_, "measured \"" + operation_ + "\", which is no collective that is calibrated",
                       "all_gather, reduce_scatter, alltoall or all_reduce");
    }
    if (ranks_ < 2) {
      throw InputError(path_, "lists " + std::to_string(ranks_) + " ranks; a collective has at least 2",
                       "keep the lines \"#  Rank  0 ... device  0\"");
    }
    if (version_.empty()) {
      throw UsageError("--version", "is needed: " + path_ + " does not name the version of NCCL",
                       "write --version 2.29.2");
    }
    const double nodes = options_.nodes > 0 ? options_.nodes : std::max<double>(1, static_cast<double>(hosts_.size()));
    KernelSamples samples{{"nccl", version_, "nccl", operation_, ""}, std::vector<std::vector<double>>(5), {}};
    for (const Row& row : rows_) {
      const std::array<double, 5> values{row.elements, static_cast<double>(ranks_), row.element_bytes, nodes, eager_};
      for (std::size_t c = 0; c < values.size(); ++c) samples.columns[c].push_back(values[c]);
      samples.latency_s.push_back(row.seconds);
    }
    report_.kept = static_cast<std::int64_t>(rows_.size());
    KernelTable table;
    table.report = std::move(report_);
    if (!rows_.empty()) merge_kernel_samples(table.kernels, {std::move(samples)}, &table.report);
    table.report.kept -= table.report.duplicates;
    return table;
  }

  struct Row {
    double elements, element_bytes, seconds;
  };
  static constexpr std::size_t kNowhere = static_cast<std::size_t>(-1);
  const std::string& path_;
  const NcclTestsOptions& options_;
  std::string operation_, version_;
  std::set<std::string, std::less<>> hosts_;
  std::int64_t ranks_ = 0;
  double eager_ = 1;
  std::size_t size_at_ = kNowhere, type_at_ = 0, time_at_ = 0, wrong_at_ = kNowhere;
  std::vector<Row> rows_;
  TableReport report_;
};

}  // namespace

KernelTable read_nccl_tests(const std::string& path, const NcclTestsOptions& options) {
  return Reader(path, options).read();
}

}  // namespace moecast
