#include "models/plan/operator.h"

#include <array>

namespace moecast {
namespace {

using S = OperatorShape;
constexpr std::array kGemm{ShapeColumn{"m", &S::m}, ShapeColumn{"n", &S::n}, ShapeColumn{"k", &S::k}};
constexpr std::array kMoe{ShapeColumn{"tokens", &S::tokens}, ShapeColumn{"experts", &S::experts},
                          ShapeColumn{"top_k", &S::top_k},   ShapeColumn{"hidden", &S::hidden},
                          ShapeColumn{"width", &S::width},   ShapeColumn{"gated", &S::gated}};
constexpr std::array kRouter{ShapeColumn{"tokens", &S::tokens}, ShapeColumn{"experts", &S::experts},
                             ShapeColumn{"top_k", &S::top_k}, ShapeColumn{"groups", &S::groups}};
constexpr std::array kPermute{ShapeColumn{"tokens", &S::tokens}, ShapeColumn{"top_k", &S::top_k},
                              ShapeColumn{"hidden", &S::hidden}};
constexpr std::array kActivation{ShapeColumn{"m", &S::m}, ShapeColumn{"width", &S::width},
                                 ShapeColumn{"gated", &S::gated}};
constexpr std::array kRows{ShapeColumn{"m", &S::m}, ShapeColumn{"hidden", &S::hidden}};
constexpr std::array kElementwise{ShapeColumn{"m", &S::m}, ShapeColumn{"width", &S::width}};
constexpr std::array kAttention{ShapeColumn{"batch", &S::batch},       ShapeColumn{"query", &S::query},
                                ShapeColumn{"context", &S::context},   ShapeColumn{"heads", &S::heads},
                                ShapeColumn{"kv_heads", &S::kv_heads}, ShapeColumn{"head_dim", &S::head_dim}};
constexpr std::array kBytes{ShapeColumn{"bytes", &S::bytes}};

struct Row {
  OperatorKind kind;
  std::string_view name;
  std::span<const ShapeColumn> columns;
};

constexpr std::array kKinds{
    Row{OperatorKind::gemm, "gemm", kGemm},
    Row{OperatorKind::grouped_gemm, "grouped_gemm", kGemm},
    Row{OperatorKind::fused_moe, "fused_moe", kMoe},
    Row{OperatorKind::router, "router", kRouter},
    Row{OperatorKind::permute, "permute", kPermute},
    Row{OperatorKind::unpermute, "unpermute", kPermute},
    Row{OperatorKind::activation, "activation", kActivation},
    Row{OperatorKind::norm, "norm", kRows},
    Row{OperatorKind::attention_prefill, "attention_prefill", kAttention},
    Row{OperatorKind::attention_decode, "attention_decode", kAttention},
    Row{OperatorKind::state_update, "state_update", kAttention},
    Row{OperatorKind::convolution, "convolution", kGemm},
    Row{OperatorKind::embedding, "embedding", kRows},
    Row{OperatorKind::elementwise, "elementwise", kElementwise},
    Row{OperatorKind::all_reduce, "all_reduce", kBytes},
    Row{OperatorKind::all_gather, "all_gather", kBytes},
    Row{OperatorKind::reduce_scatter, "reduce_scatter", kBytes},
    Row{OperatorKind::all_to_all_dispatch, "all_to_all_dispatch", kBytes},
    Row{OperatorKind::all_to_all_combine, "all_to_all_combine", kBytes},
    Row{OperatorKind::point_to_point, "point_to_point", kBytes},
    Row{OperatorKind::weight_transfer, "weight_transfer", kBytes},
    Row{OperatorKind::copy, "copy", kBytes},
    Row{OperatorKind::read, "read", kBytes},
    Row{OperatorKind::call, "call", {}},
    Row{OperatorKind::host, "host", {}},
};

constexpr std::array<std::string_view, kTrainingPhases> kPhases{"forward", "recompute", "backward",
                                                                "gradient_reduction", "optimizer"};

}  // namespace

std::string_view to_string(TrainingPhase phase) { return kPhases[static_cast<std::size_t>(phase)]; }

std::string_view to_string(OperatorKind kind) { return kKinds[static_cast<std::size_t>(kind)].name; }

std::optional<OperatorKind> parse_operator_kind(std::string_view text) {
  for (const Row& row : kKinds) {
    if (row.name == text) return row.kind;
  }
  return std::nullopt;
}

std::span<const ShapeColumn> shape_columns(OperatorKind kind) { return kKinds[static_cast<std::size_t>(kind)].columns; }

}  // namespace moecast
