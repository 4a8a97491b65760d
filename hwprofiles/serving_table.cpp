#include "hwprofiles/serving_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>
#include <string_view>

#include "hwprofiles/csv_table.h"
#include "models/core/error.h"

namespace moecast {
namespace {

enum Column {
  kEngine,
  kVersion,
  kModel,
  kSystem,
  kPrecision,
  kIsl,
  kOsl,
  kGemm,
  kMoe,
  kBatch,
  kTp,
  kPp,
  kDp,
  kMoeTp,
  kEp,
  kTtft,
  kTpot,
  kSource,
  kCount
};
constexpr std::array<std::string_view, kCount> kColumns{"backend",
                                                        "backend_version",
                                                        "model_path",
                                                        "system",
                                                        "precision",
                                                        "isl",
                                                        "osl",
                                                        "gemm_quant_mode",
                                                        "moe_quant_mode",
                                                        "batch_size",
                                                        "tp_size",
                                                        "pp_size",
                                                        "attention_dp_size",
                                                        "moe_tp_size",
                                                        "moe_ep_size",
                                                        "silicon_ttft_ms",
                                                        "silicon_tpot_ms",
                                                        "?silicon_data_source"};
constexpr double kMostServingRanks = 1e5;
constexpr double kMostMilliseconds = 1e8;
constexpr std::int64_t kMostRequests = 1'000'000'000;
constexpr double kTwinRatio = 1.25;

bool is_deepseek(const std::string& model) { return model.starts_with("deepseek"); }

/// R1 and V3 are one architecture, and one run is listed as both.
std::string architecture_of(const ServingRow& row) { return is_deepseek(row.model) ? "deepseek" : row.model; }

std::string load_of(const ServingRow& row) {
  return fmt::format("{}|{}|{}|{}|{}|{}|{}|{}", architecture_of(row), row.system, row.engine, row.gemm_dtype,
                     row.expert_dtype, row.prompt, row.output, row.concurrency);
}

constexpr std::string_view kDay = "2026-01-14";

/// What follows "measured=" in the source, as far as it is a day.
std::string date_of(std::string_view source) {
  constexpr std::string_view kMark = "measured=";
  const std::size_t at = source.find(kMark);
  if (at == std::string_view::npos) return "";
  const std::string_view day = source.substr(at + kMark.size(), kDay.size());
  return is_day(day) ? std::string(day) : "";
}

/// What follows "silicon_concurrency=" in the source; nullopt where no number of requests does.
std::optional<double> stated_concurrency(std::string_view source) {
  constexpr std::string_view kMark = "silicon_concurrency=";
  const std::size_t at = source.find(kMark);
  if (at == std::string_view::npos) return std::nullopt;
  std::int64_t requests = 0;
  const char* begin = source.data() + at + kMark.size();
  const auto [end, error] = std::from_chars(begin, source.data() + source.size(), requests);
  if (error != std::errc() || requests < 1 || requests > kMostRequests) return std::nullopt;
  return static_cast<double>(requests);
}

}  // namespace

bool is_day(std::string_view text) {
  if (text.size() != kDay.size()) return false;
  for (std::size_t i = 0; i < kDay.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (kDay[i] == '-' ? text[i] != '-' : !digit) return false;
  }
  const auto part = [&](std::size_t at) { return (text[at] - '0') * 10 + text[at + 1] - '0'; };
  return part(5) >= 1 && part(5) <= 12 && part(8) >= 1 && part(8) <= 31;
}

ServingTable read_serving_table(const std::string& path) {
  ServingTable table;
  std::set<std::string> seen;
  std::map<std::string, std::pair<double, double>> twins;  // least and most TPOT
  const auto deployment = [](const ServingRow& row) {
    return load_of(row) + fmt::format("|{}|{}|{}|{}", row.tp, row.dp, row.moe_tp, row.ep);
  };
  read_csv_table(path, kColumns, [&](const CsvRow& cells) {
    ++table.read;
    ServingRow row;
    row.model = cells.text(kModel);
    row.system = cells.text(kSystem);
    row.engine = cells.text(kEngine);
    row.version = cells.text(kVersion);
    row.date = date_of(cells.text(kSource));
    row.gemm_dtype = cells.text(kGemm);
    row.expert_dtype = cells.text(kMoe);
    row.prompt = cells.number(kIsl, 1, 1e9);
    row.output = cells.number(kOsl, 1, 1e9);
    const auto ranks = [&](Column column) { return static_cast<int>(cells.number(column, 1, kMostServingRanks)); };
    row.tp = ranks(kTp);
    row.moe_tp = ranks(kMoeTp);
    row.ep = ranks(kEp);
    const bool no_dp = cells.text(kDp).empty();
    row.dp = static_cast<int>(cells.number_or(kDp, 1, kMostServingRanks, 1));
    const double batch = cells.number(kBatch, 1e-3, 1e9);
    row.concurrency = stated_concurrency(cells.text(kSource)).value_or(batch * row.dp);
    // tp x ep stored as a product: "tp8 ep8" is eight devices.
    if (is_deepseek(row.model) && row.moe_tp == row.ep && row.moe_tp > 1) {
      (row.dp > 1 ? row.dp : row.tp) = row.moe_tp;
      row.moe_tp = 1;
    }
    if (no_dp) row.dp = std::max(1, row.moe_tp * row.ep / row.tp);
    row.ttft_s = 1e-3 * cells.number(kTtft, 1e-6, kMostMilliseconds);
    row.tpot_s = 1e-3 * cells.number(kTpot, 1e-6, kMostMilliseconds);
    if (cells.number(kPp, 1, kMostServingRanks) > 1) {
      ++table.left_out["pipeline stages"];
      return;
    }
    const std::string run = load_of(row) + fmt::format("|{:.2f}|{:.3f}", 1e3 * row.ttft_s, 1e3 * row.tpot_s);
    if (!seen.insert(run).second) {
      ++table.left_out["the same run under another id"];
      return;
    }
    auto& [least, most] = twins.try_emplace(deployment(row), row.tpot_s, row.tpot_s).first->second;
    least = std::min(least, row.tpot_s);
    most = std::max(most, row.tpot_s);
    table.rows.push_back(std::move(row));
  });
  for (ServingRow& row : table.rows) {
    const auto& [least, most] = twins.at(deployment(row));
    row.twin_differs = most > kTwinRatio * least;
  }
  return table;
}

}  // namespace moecast
