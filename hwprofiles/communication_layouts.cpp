#include <algorithm>
#include <array>
#include <cmath>

#include "hwprofiles/kernel_layout.h"

namespace moecast {
namespace {

using Kind = OperatorKind;

constexpr double kMostTokens = 1e9;
constexpr double kMostWidth = 1e7;
constexpr double kMostRanks = 1e6;
constexpr double kMicrosecond = 1e-6;

struct ElementSize {
  std::string_view name;
  double bytes;
};
constexpr std::array<ElementSize, 18> kElements{{{"half", 2},
                                                 {"float16", 2},
                                                 {"bfloat16", 2},
                                                 {"bf16", 2},
                                                 {"float", 4},
                                                 {"float32", 4},
                                                 {"double", 8},
                                                 {"int32", 4},
                                                 {"int8", 1},
                                                 {"uint8", 1},
                                                 {"int64", 8},
                                                 {"uint32", 4},
                                                 {"f8e4m3", 1},
                                                 {"f8e5m2", 1},
                                                 {"fp8", 1},
                                                 // one byte a 32, and one byte a 16, of scales
                                                 {"mxfp8", 1 + 1.0 / 32},
                                                 {"nvfp4", 0.5 + 1.0 / 16},
                                                 {"mxfp4", 0.5 + 1.0 / 32}}};

/// Replayed graphs, and what does not say how it was launched: 0.
std::optional<double> parse_eager(std::string_view text) { return text.ends_with("_eager") ? 1 : 0; }

/// @param element  column that names the format. @param launch  column that says eager or graph; may be missing.
std::vector<TableColumn> collective_columns(std::string_view element, std::string_view launch) {
  return {{"message_size", 1, 1e13, std::nullopt, true},  // elements
          {"num_gpus", 2, kMostRanks},
          {"element_bytes", 0.1, 16, std::nullopt, false, element, parse_element_bytes},
          {"node_num", 1, kMostRanks, 1},
          {"eager", 0, 1, 0, false, launch, parse_eager}};
}

const TableColumn kTokens{"num_token", 1, kMostTokens, std::nullopt, true};

std::vector<TableColumn> expert_columns() {
  return {{"hidden_size", 1, kMostWidth}, {"num_topk", 1, 1e5}, {"num_experts", 1, 1e6}, {"node_num", 1, kMostRanks}};
}

std::vector<TableColumn> joined(std::vector<TableColumn> first, const std::vector<TableColumn>& more) {
  first.insert(first.end(), more.begin(), more.end());
  return first;
}

}  // namespace

std::vector<KernelLayout> communication_layouts() {
  return {
      {"nccl", Kind::all_reduce, {"op_name"}, {}, collective_columns("nccl_dtype", "launch"), {{"latency"}}},
      {"custom_allreduce",
       Kind::all_reduce,
       {"op_name"},
       {},
       collective_columns("allreduce_dtype", "kernel_source"),
       {{"latency"}}},
      {"wideep_deepep_ll",
       Kind::all_to_all_dispatch,
       {"kernel_source"},
       {},
       joined({kTokens, {kSentRowsColumn, 0, kMostTokens * 1e3, 0, true}}, expert_columns()),
       {{"dispatch_avg_t_us", kMicrosecond, "dispatch"}, {"combine_avg_t_us", kMicrosecond, "combine"}}},
      {"wideep_deepep_normal",
       Kind::all_to_all_dispatch,
       {"kernel_source"},
       {},
       joined({kTokens, {"dispatch_sms", 1, 1e4}}, expert_columns()),
       {{"dispatch_transmit_us", kMicrosecond, "dispatch"},
        {"combine_transmit_us", kMicrosecond, "combine"},
        {"dispatch_notify_us", kMicrosecond, "dispatch_notify"},
        {"combine_notify_us", kMicrosecond, "combine_notify"}}},
      {"nvlink_one_sided",
       Kind::all_to_all_dispatch,
       {"implementation", "op"},
       {},
       {{"tokens_per_rank", 1, kMostTokens, std::nullopt, true},
        {"hidden", 1, kMostWidth},
        {"topk", 1, 1e5},
        {"num_experts", 1, 1e6},
        {"ep_size", 2, kMostRanks},
        {"element_bytes", 0.1, 16, std::nullopt, false, "payload_dtype", parse_element_bytes},
        {kCopiesColumn, 0, kMostRanks, 0}},
       {{"latency_us", kMicrosecond}}},
  };
}

std::optional<double> parse_element_bytes(std::string_view text) {
  const auto* found = std::find_if(kElements.begin(), kElements.end(), [&](const auto& e) { return e.name == text; });
  return found == kElements.end() ? std::nullopt : std::optional(found->bytes);
}

bool is_communication(std::string_view layout) {
  static const std::vector<KernelLayout> layouts = communication_layouts();
  return std::any_of(layouts.begin(), layouts.end(), [&](const KernelLayout& known) { return known.name == layout; });
}

double sent_rows_of(std::string_view framework, std::string_view version, double tokens, double top_k) {
  constexpr double kMasked = 10;
  const double rows = tokens * top_k;
  if (framework != "sglang" || !version.starts_with("0.5.6")) return rows;
  constexpr double kLeast = 0.1;  // where all may be masked
  return std::max(kLeast, rows * std::pow(1 - 1 / rows, kMasked));
}

}  // namespace moecast
