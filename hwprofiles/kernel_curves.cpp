#include <array>
#include <charconv>
#include <cmath>

#include "hwprofiles/kernel_samples.h"
#include "models/core/csv_line.h"
#include "models/core/error.h"

namespace moecast {
namespace {

/// Step of a stored ln(latency): rounding moves a latency by at most 0.025 %, repeated measurements by 0.5 %.
constexpr double kStep = 5e-4;
constexpr std::string_view kLatencyColumn = "ln_latency_steps";
constexpr const char* kDamaged = "import the table again: moecast import table";

std::string number_text(double value) {
  std::array<char, 32> text{};
  const auto result = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), result.ptr};
}

std::string header_of(const KernelLayout& layout) {
  std::string header = "kernel,dtype";
  for (const bool position : {false, true}) {
    for (const TableColumn& column : layout.numbers) {
      if (column.position == position) header += "," + std::string(column.name);
    }
  }
  return header + "," + std::string(kLatencyColumn);
}

struct Place {
  const std::string& where;
  std::size_t line;
  [[noreturn]] void fail(std::string_view column, std::string_view text, const std::string& problem) const {
    throw InputError(where + ": line " + std::to_string(line) + ", column " + std::string(column),
                     "\"" + std::string(text.substr(0, 40)) + "\" " + problem, kDamaged);
  }
};

double parse_number(std::string_view text, const TableColumn& column, const Place& place) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    place.fail(column.name, text, "is not a number");
  }
  if (value < column.low || value > column.high) place.fail(column.name, text, "is out of range");
  return value;
}

std::int64_t parse_steps(std::string_view text, const Place& place) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || std::abs(value) > 200'000) {
    place.fail(kLatencyColumn, text, "is not a count of steps");
  }
  return value;
}

/// Appends the rows of one line to `samples`.
void parse_curve(const std::vector<std::string_view>& cells, const KernelLayout& layout, const Place& place,
                 KernelSamples& samples) {
  const std::vector<std::string_view> steps = split_text(cells.back(), ' ');
  std::size_t cell = 2;
  for (const bool position : {false, true}) {
    for (std::size_t c = 0; c < layout.numbers.size(); ++c) {
      const TableColumn& column = layout.numbers[c];
      if (column.position != position) continue;
      std::vector<double>& out = samples.columns[c];
      if (!position) {
        out.insert(out.end(), steps.size(), parse_number(cells[cell], column, place));
      } else {
        const std::vector<std::string_view> values = split_text(cells[cell], ' ');
        if (values.size() != steps.size()) place.fail(column.name, cells[cell], "has not one value a latency");
        for (const std::string_view value : values) out.push_back(parse_number(value, column, place));
      }
      ++cell;
    }
  }
  std::int64_t sum = 0;
  for (const std::string_view step : steps) {
    sum += parse_steps(step, place);
    if (std::abs(sum) > 200'000) place.fail(kLatencyColumn, step, "leads out of all latencies");
    samples.latency_s.push_back(std::exp(static_cast<double>(sum) * kStep));
  }
}

}  // namespace

std::string curves_text(const std::vector<KernelSamples>& kernels) {
  if (kernels.empty()) return {};
  std::string text = header_of(kernels.front().layout()) + "\n";
  for (const KernelSamples& samples : kernels) {
    const auto& numbers = samples.layout().numbers;
    for (const std::vector<std::size_t>& curve : curves_of(samples)) {
      text += samples.key.kernel + "," + samples.key.dtype;
      for (const bool position : {false, true}) {
        for (std::size_t c = 0; c < numbers.size(); ++c) {
          if (numbers[c].position != position) continue;
          text += ",";
          for (std::size_t i = 0; i < (position ? curve.size() : 1); ++i) {
            if (i > 0) text += " ";
            text += number_text(samples.columns[c][curve[i]]);
          }
        }
      }
      std::int64_t before = 0;
      for (std::size_t i = 0; i < curve.size(); ++i) {
        const auto steps = static_cast<std::int64_t>(std::llround(std::log(samples.latency_s[curve[i]]) / kStep));
        text += (i == 0 ? "," : " ") + std::to_string(steps - before);
        before = steps;
      }
      text += "\n";
    }
  }
  return text;
}

std::vector<KernelSamples> parse_curves_text(std::string_view text, const std::string& where, const TableName& name) {
  const KernelLayout* layout = find_kernel_layout(name.layout);
  if (layout == nullptr) throw InputError(where, "is not named after a kind of table", "<layout>.<framework>.csv.gz");
  const std::size_t cells_a_line = layout->numbers.size() + 3;
  std::vector<KernelSamples> kernels;
  std::size_t line = 0;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view content = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++line;
    const Place place{where, line};
    if (line == 1) {
      if (content != header_of(*layout)) {
        place.fail("header", content, "is not the header of these curves (" + header_of(*layout) + ")");
      }
      continue;
    }
    if (content.empty()) continue;
    const std::vector<std::string_view> cells = split_text(content, ',');
    if (cells.size() != cells_a_line) {
      throw InputError(where + ": line " + std::to_string(line),
                       "has " + std::to_string(cells.size()) + " columns, expected " + std::to_string(cells_a_line),
                       kDamaged);
    }
    const KernelKey key{name.framework, name.version, name.layout, std::string(cells[0]), std::string(cells[1])};
    if (kernels.empty() || kernels.back().key != key) {
      kernels.push_back({key, std::vector<std::vector<double>>(layout->numbers.size()), {}});
    }
    parse_curve(cells, *layout, place, kernels.back());
  }
  std::vector<KernelSamples> merged;
  merge_kernel_samples(merged, std::move(kernels));
  return merged;
}

}  // namespace moecast
