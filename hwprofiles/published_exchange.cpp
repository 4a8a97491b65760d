#include "hwprofiles/published_exchange.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "hwprofiles/csv_table.h"
#include "models/core/csv_line.h"
#include "models/core/file.h"

namespace moecast {
namespace {

struct PublishedAt {
  enum Column : std::size_t {
    op,
    library,
    gpu,
    nodes,
    ep,
    fabric,
    nvlink,
    tokens,
    hidden,
    top_k,
    experts,
    format,
    bytes,
    latency,
    bandwidth,
    mode
  };
};
constexpr std::array<std::string_view, 16> kPublishedColumns{
    "op",   "library", "gpu",   "nodes",          "ep",         "fabric",  "nvlink_GBps", "tokens_per_rank", "hidden",
    "topk", "experts", "dtype", "bytes_per_rank", "latency_us", "bw_GBps", "mode"};

constexpr double kGigaRate = 1e9;
constexpr double kMicroseconds = 1e-6;
constexpr double kMostPublishedRanks = 1e6;

/// nullopt where the cell is empty.
std::optional<double> published_value(const CsvRow& row, PublishedAt::Column column, double most, double unit = 1) {
  const double value = row.number_or(column, 1e-9, most, 0);
  return value > 0 ? std::optional(value * unit) : std::nullopt;
}

}  // namespace

bool is_published_table(const std::string& path) {
  bool fits = false;
  read_lines_while(path, [&](std::uint64_t /*number*/, std::string_view line) {
    CsvLine cells;
    const auto& header = cells.split(line);
    fits = std::ranges::all_of(kPublishedColumns,
                               [&](std::string_view name) { return std::ranges::find(header, name) != header.end(); });
    return false;
  });
  return fits;
}

PublishedTable read_published_table(const std::string& path) {
  PublishedTable table;
  read_csv_table(path, kPublishedColumns, [&](const CsvRow& row) {
    ++table.read;
    PublishedExchange one;
    one.operation = row.text(PublishedAt::op);
    one.library = row.text(PublishedAt::library);
    one.gpu = row.text(PublishedAt::gpu);
    one.mode = row.text(PublishedAt::mode);
    one.fabric = row.text(PublishedAt::fabric);
    one.where = row.where();
    const std::optional<double> nodes = published_value(row, PublishedAt::nodes, kMostPublishedRanks);
    const std::optional<double> ranks = published_value(row, PublishedAt::ep, kMostPublishedRanks);
    one.tokens = published_value(row, PublishedAt::tokens, 1e9);
    one.hidden = published_value(row, PublishedAt::hidden, 1e7);
    one.top_k = published_value(row, PublishedAt::top_k, 1e5);
    one.experts = published_value(row, PublishedAt::experts, 1e6);
    one.fp8 = row.text(PublishedAt::format) == "fp8";
    one.nvlink = published_value(row, PublishedAt::nvlink, 1e6, kGigaRate);
    one.bytes = published_value(row, PublishedAt::bytes, 1e15);
    one.seconds = published_value(row, PublishedAt::latency, 1e10, kMicroseconds);
    one.bandwidth = published_value(row, PublishedAt::bandwidth, 1e6, kGigaRate);
    const auto refuse = [&](const char* reason) { ++table.left_out[reason]; };
    if (one.operation != "dispatch" && one.operation != "combine" && one.operation != "alltoall") {
      return refuse("neither a dispatch nor a combine nor an all-to-all");
    }
    if (!nodes || !ranks) return refuse("nodes or ranks are not said");
    if (!one.seconds && !one.bandwidth) return refuse("neither a latency nor a bandwidth");
    one.nodes = *nodes;
    one.ranks = *ranks;
    table.rows.push_back(std::move(one));
  });
  return table;
}

}  // namespace moecast
