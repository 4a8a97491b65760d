#include "hwprofiles/kernel_layout.h"

#include <array>
#include <charconv>
#include <cmath>
#include <stdexcept>

namespace moecast {
namespace {

constexpr double kMostRows = 1e9;
constexpr double kWidest = 1e7;
constexpr std::string_view kPowerLaw = "power_law_";

const TableColumn kTokenColumn{"num_tokens", 1, kMostRows, std::nullopt, true};
const TableColumn kBatchColumn{"batch_size", 1, kMostRows, std::nullopt, true};
const TableColumn kInputLength{"isl", 1, kMostRows, std::nullopt, true};
const TableColumn kStepColumn{"step", 0, kMostRows, 0, true};

std::vector<TableColumn> moe_columns() {
  return {kTokenColumn,
          {"hidden_size", 1, kWidest},
          {"inter_size", 1, kWidest},
          {"topk", 1, 1e5},
          {"num_experts", 1, 1e6},
          {"moe_tp_size", 1, 1e5},
          {"moe_ep_size", 1, 1e5},
          {kDistributionColumn, 0, 10},
          {kMatricesColumn, 2, 3, 0}};
}

std::vector<TableColumn> attention_columns() {
  return {kBatchColumn,
          kInputLength,
          kStepColumn,
          {"num_heads", 1, 1e5},
          {"num_key_value_heads", 0, 1e5},
          {"head_dim", 1, 1e5},
          {"window_size", 0, kMostRows, 0}};
}

std::vector<TableColumn> latent_attention_columns() {
  return {kBatchColumn, kInputLength, kStepColumn, {"num_heads", 1, 1e5}, {"tp_size", 1, 1e5, 1}};
}

std::vector<KernelLayout> make_layouts() {
  std::vector<TableColumn> slots = moe_columns();
  slots.push_back({"rank0_num_tokens", 0, kMostRows});
  slots.push_back({"num_slots", 1, 1e6});
  const std::vector<TableColumn> scales{{"m", 1, kMostRows, std::nullopt, true}, {"k", 1, kWidest}};
  std::vector<KernelLayout> layouts{
      {"moe", OperatorKind::fused_moe, {"kernel_source"}, {"moe_dtype"}, moe_columns(), {{"latency"}}},
      {"gemm",
       OperatorKind::gemm,
       {"kernel_source"},
       {"gemm_dtype"},
       {{"m", 1, kMostRows, std::nullopt, true}, {"n", 1, kWidest}, {"k", 1, kWidest}},
       {{"latency"}}},
      {"context_attention",
       OperatorKind::attention_prefill,
       {"kernel_source"},
       {"attn_dtype", "kv_cache_dtype"},
       attention_columns(),
       {{"latency"}}},
      {"generation_attention",
       OperatorKind::attention_decode,
       {"kernel_source"},
       {"attn_dtype", "kv_cache_dtype"},
       attention_columns(),
       {{"latency"}}},
      {"context_mla",
       OperatorKind::attention_prefill,
       {"kernel_source"},
       {"mla_dtype", "kv_cache_dtype"},
       latent_attention_columns(),
       {{"latency"}}},
      {"generation_mla",
       OperatorKind::attention_decode,
       {"kernel_source"},
       {"mla_dtype", "kv_cache_dtype"},
       latent_attention_columns(),
       {{"latency"}}},
      {"mla_bmm",
       OperatorKind::gemm,
       {"kernel_source"},
       {"bmm_dtype"},
       {kTokenColumn, {"num_heads", 1, 1e5}},
       {{"latency"}}},
      {"gdn",
       OperatorKind::state_update,
       {"kernel_source", "phase"},
       {},
       {kBatchColumn,
        {"seq_len", 1, kMostRows, std::nullopt, true},
        {"d_model", 1, kWidest},
        {"d_conv", 1, 1e4},
        {"num_k_heads", 1, 1e5},
        {"head_k_dim", 1, 1e5},
        {"num_v_heads", 1, 1e5},
        {"head_v_dim", 1, 1e5}},
       {{"latency"}}},
      {"scale_matrix", OperatorKind::elementwise, {"kernel_source"}, {"quant_dtype"}, scales, {{"latency"}}},
      {"computescale", OperatorKind::elementwise, {"kernel_source"}, {"quant_dtype"}, scales, {{"latency"}}},
      {"wideep_context_moe",
       OperatorKind::fused_moe,
       {"op_name", "kernel_source"},
       {"moe_dtype"},
       moe_columns(),
       {{"latency"}}},
      {"wideep_generation_moe",
       OperatorKind::fused_moe,
       {"op_name", "kernel_source"},
       {"moe_dtype"},
       moe_columns(),
       {{"latency"}}},
      {"wideep_moe",
       OperatorKind::fused_moe,
       {"op_name", "kernel_source", "moe_kernel"},
       {"moe_dtype"},
       slots,
       {{"latency"}}},
      {"moe_activated_experts",
       OperatorKind::fused_moe,
       {},
       {},
       {{"tokens", 1, kMostRows, std::nullopt, true}, {"activated_experts", 1, 1e6}},
       {{"time_us", 1e-6}}},
  };
  for (KernelLayout& layout : communication_layouts()) layouts.push_back(std::move(layout));
  return layouts;
}

}  // namespace

std::size_t KernelLayout::column(std::string_view column_name) const {
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i].name == column_name) return i;
  }
  throw std::out_of_range("no column " + std::string(column_name) + " in " + std::string(name));
}

std::span<const KernelLayout> kernel_layouts() {
  static const std::vector<KernelLayout> layouts = make_layouts();
  return layouts;
}

const KernelLayout* find_kernel_layout(std::string_view name) {
  for (const KernelLayout& layout : kernel_layouts()) {
    if (layout.name == name) return &layout;
  }
  return nullptr;
}

std::optional<double> parse_distribution(std::string_view text) {
  if (text == "balanced" || text == "uniform") return 0;
  if (!text.starts_with(kPowerLaw)) return std::nullopt;
  text.remove_prefix(kPowerLaw.size());
  double alpha = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), alpha);
  if (error != std::errc() || end != text.data() + text.size() || !(alpha > 0) || alpha > 10) return std::nullopt;
  return alpha;
}

std::string distribution_text(double alpha) {
  if (alpha == 0) return "balanced";
  std::array<char, 32> text{};
  const auto result = std::to_chars(text.data(), text.data() + text.size(), alpha);
  return std::string(kPowerLaw) + std::string(text.data(), result.ptr);
}

double matrices_of(std::string_view framework, std::string_view kernel, double inter_size, double top_k) {
  if (kernel.find("nongated") != std::string_view::npos) return 2;
  // Weights that small batches stream, a matrix, beside those of gated experts: the frameworks' own fused kernels read
  // three of Nemotron's experts too; SGLang 0.5.14 with TensorRT-LLM's kernels and vLLM 0.24 read two.
  if (kernel.find("fused_moe") != std::string_view::npos) return 3;
  if (framework == "sglang" && kernel.find("trtllm") == std::string_view::npos) return 3;
  return inter_size == 1856 || inter_size == 2688 || top_k == 22 ? 2 : 3;
}

}  // namespace moecast
