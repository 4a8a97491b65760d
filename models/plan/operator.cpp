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
constexpr std::array kRowColumns{ShapeColumn{"m", &S::m}, ShapeColumn{"hidden", &S::hidden}};
constexpr std::array kElementwise{ShapeColumn{"m", &S::m}, ShapeColumn{"width", &S::width}};
constexpr std::array kAttention{ShapeColumn{"batch", &S::batch},       ShapeColumn{"query", &S::query},
                                ShapeColumn{"context", &S::context},   ShapeColumn{"heads", &S::heads},
                                ShapeColumn{"kv_heads", &S::kv_heads}, ShapeColumn{"head_dim", &S::head_dim}};
constexpr std::array kByteColumns{ShapeColumn{"bytes", &S::bytes}};

struct KindRow {
  OperatorKind kind;
  std::string_view name;
  std::span<const ShapeColumn> columns;
};

constexpr std::array kKinds{
    KindRow{OperatorKind::gemm, "gemm", kGemm},
    KindRow{OperatorKind::grouped_gemm, "grouped_gemm", kGemm},
    KindRow{OperatorKind::fused_moe, "fused_moe", kMoe},
    KindRow{OperatorKind::router, "router", kRouter},
    KindRow{OperatorKind::permute, "permute", kPermute},
    KindRow{OperatorKind::unpermute, "unpermute", kPermute},
    KindRow{OperatorKind::activation, "activation", kActivation},
    KindRow{OperatorKind::norm, "norm", kRowColumns},
    KindRow{OperatorKind::attention_prefill, "attention_prefill", kAttention},
    KindRow{OperatorKind::attention_decode, "attention_decode", kAttention},
    KindRow{OperatorKind::state_update, "state_update", kAttention},
    KindRow{OperatorKind::convolution, "convolution", kGemm},
    KindRow{OperatorKind::embedding, "embedding", kRowColumns},
    KindRow{OperatorKind::elementwise, "elementwise", kElementwise},
    KindRow{OperatorKind::all_reduce, "all_reduce", kByteColumns},
    KindRow{OperatorKind::all_gather, "all_gather", kByteColumns},
    KindRow{OperatorKind::reduce_scatter, "reduce_scatter", kByteColumns},
    KindRow{OperatorKind::all_to_all_dispatch, "all_to_all_dispatch", kByteColumns},
    KindRow{OperatorKind::all_to_all_combine, "all_to_all_combine", kByteColumns},
    KindRow{OperatorKind::point_to_point, "point_to_point", kByteColumns},
    KindRow{OperatorKind::weight_transfer, "weight_transfer", kByteColumns},
    KindRow{OperatorKind::copy, "copy", kByteColumns},
    KindRow{OperatorKind::read, "read", kByteColumns},
    KindRow{OperatorKind::call, "call", {}},
    KindRow{OperatorKind::host, "host", {}},
};

constexpr std::array<std::string_view, kTrainingPhases> kTrainingPhaseNames{"forward", "recompute", "backward",
                                                                            "gradient_reduction", "optimizer"};

}  // namespace

std::string_view to_string(TrainingPhase phase) { return kTrainingPhaseNames[static_cast<std::size_t>(phase)]; }

std::string_view to_string(OperatorKind kind) { return kKinds[static_cast<std::size_t>(kind)].name; }

std::optional<OperatorKind> parse_operator_kind(std::string_view text) {
  for (const KindRow& row : kKinds) {
    if (row.name == text) return row.kind;
  }
  return std::nullopt;
}

std::span<const ShapeColumn> shape_columns(OperatorKind kind) { return kKinds[static_cast<std::size_t>(kind)].columns; }

}  // namespace moecast
