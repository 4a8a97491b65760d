#include "hwprofiles/kernel_samples.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <numeric>
#include <stdexcept>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

constexpr std::string_view kSuffix = ".csv.gz";
/// Two measurements of one key further apart than this disagree (their noise is 3 to 4 % at p90).
constexpr double kDisagree = 1.1;

/// Order of rows: columns that are no position first, so that a curve lies together.
std::vector<std::size_t> column_order(const KernelLayout& layout) {
  std::vector<std::size_t> order;
  for (const bool position : {false, true}) {
    for (std::size_t c = 0; c < layout.numbers.size(); ++c) {
      if (layout.numbers[c].position == position) order.push_back(c);
    }
  }
  return order;
}

}  // namespace

std::string KernelKey::text() const {
  std::string text = framework.empty() ? std::string("-") : framework + "-" + version;
  for (const std::string& part : {layout, kernel, dtype}) {
    if (!part.empty()) text += " " + part;
  }
  return text;
}

const KernelLayout& KernelSamples::layout() const {
  const KernelLayout* found = find_kernel_layout(key.layout);
  if (found == nullptr) throw std::logic_error("samples of an unknown layout " + key.layout);
  return *found;
}

void KernelSamples::row(std::size_t index, std::vector<double>& out) const {
  out.resize(columns.size());
  for (std::size_t c = 0; c < columns.size(); ++c) out[c] = columns[c][index];
}

std::pair<std::string, std::string> split_backend(std::string_view text) {
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] == '-' && text[i + 1] >= '0' && text[i + 1] <= '9') {
      return {std::string(text.substr(0, i)), std::string(text.substr(i + 1))};
    }
  }
  return {std::string(text), {}};
}

TableName parse_table_name(const std::string& path) {
  std::string name = std::filesystem::path(path).filename().string();
  for (const std::string_view suffix : {".gz", ".csv"}) {
    if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
  }
  TableName parts;
  const std::size_t dot = name.find('.');
  parts.layout = name.substr(0, dot);
  if (find_kernel_layout(parts.layout) == nullptr) parts.layout.clear();
  if (dot != std::string::npos) std::tie(parts.framework, parts.version) = split_backend(name.substr(dot + 1));
  return parts;
}

KernelSamples pick_rows(const KernelSamples& samples, const std::vector<std::size_t>& rows) {
  KernelSamples picked{samples.key, std::vector<std::vector<double>>(samples.columns.size()), {}};
  for (const std::size_t row : rows) {
    for (std::size_t c = 0; c < picked.columns.size(); ++c) picked.columns[c].push_back(samples.columns[c][row]);
    picked.latency_s.push_back(samples.latency_s[row]);
  }
  return picked;
}

std::vector<std::vector<std::size_t>> curves_of(const KernelSamples& samples) {
  const auto& numbers = samples.layout().numbers;
  std::vector<std::vector<std::size_t>> curves;
  const auto same_curve = [&](std::size_t a, std::size_t b) {
    for (std::size_t c = 0; c < numbers.size(); ++c) {
      if (!numbers[c].position && samples.columns[c][a] != samples.columns[c][b]) return false;
    }
    return true;
  };
  for (std::size_t i = 0; i < samples.size(); ++i) {
    if (curves.empty() || !same_curve(curves.back().back(), i)) curves.emplace_back();
    curves.back().push_back(i);
  }
  return curves;
}

void merge_kernel_samples(std::vector<KernelSamples>& into, std::vector<KernelSamples> more, TableReport* report) {
  for (KernelSamples& added : more) {
    const auto found =
        std::find_if(into.begin(), into.end(), [&](const auto& known) { return known.key == added.key; });
    if (found == into.end()) {
      into.push_back(std::move(added));
      continue;
    }
    for (std::size_t c = 0; c < found->columns.size(); ++c) {
      found->columns[c].insert(found->columns[c].end(), added.columns[c].begin(), added.columns[c].end());
    }
    found->latency_s.insert(found->latency_s.end(), added.latency_s.begin(), added.latency_s.end());
  }
  for (KernelSamples& samples : into) {
    const std::vector<std::size_t> order = column_order(samples.layout());
    std::vector<std::size_t> rows(samples.size());
    std::iota(rows.begin(), rows.end(), std::size_t{0});
    const auto compare = [&](std::size_t a, std::size_t b) {
      for (const std::size_t c : order) {
        if (samples.columns[c][a] != samples.columns[c][b])
          return samples.columns[c][a] < samples.columns[c][b] ? -1 : 1;
      }
      return 0;
    };
    std::stable_sort(rows.begin(), rows.end(), [&](std::size_t a, std::size_t b) { return compare(a, b) < 0; });
    std::vector<std::size_t> kept;
    for (const std::size_t row : rows) {
      if (!kept.empty() && compare(kept.back(), row) == 0) {
        const double ratio = samples.latency_s[kept.back()] / samples.latency_s[row];
        if (report != nullptr) {
          ++report->duplicates;
          report->disagreeing += ratio > kDisagree || ratio < 1 / kDisagree ? 1 : 0;
        }
        kept.pop_back();
      }
      kept.push_back(row);
    }
    const auto pick = [&](std::vector<double>& values) {
      std::vector<double> picked;
      picked.reserve(kept.size());
      for (const std::size_t row : kept) picked.push_back(values[row]);
      values = std::move(picked);
    };
    for (auto& column : samples.columns) pick(column);
    pick(samples.latency_s);
  }
  std::sort(into.begin(), into.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
}

std::vector<KernelSamples> read_kernel_samples(const std::string& folder) {
  std::error_code none;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/samples", none)) {
    const std::string name = entry.path().filename().string();
    const TableName parts = parse_table_name(name);
    if (name.ends_with(kSuffix) && !parts.layout.empty() && !parts.framework.empty()) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  std::vector<KernelSamples> all;
  for (const std::string& name : names) {
    const std::string path = folder + "/samples/" + name;
    auto kernels = parse_curves_text(read_text_file(path), path, parse_table_name(name));
    all.insert(all.end(), std::make_move_iterator(kernels.begin()), std::make_move_iterator(kernels.end()));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
  return all;
}

void write_kernel_samples(const std::string& folder, const std::vector<KernelSamples>& kernels) {
  std::error_code failed;
  std::filesystem::create_directories(folder + "/samples", failed);
  if (failed) throw DeviceError(folder + "/samples", "cannot be made: " + failed.message());
  std::map<std::string, std::vector<KernelSamples>> files;
  for (const KernelSamples& samples : kernels) {
    const KernelKey& key = samples.key;
    const std::string version = key.version.empty() ? "" : "-" + key.version;
    files[key.layout + "." + key.framework + version].push_back(samples);
  }
  for (const auto& [name, content] : files) {
    write_file_atomically(folder + "/samples/" + name + std::string(kSuffix), curves_text(content));
  }
}

}  // namespace moecast
