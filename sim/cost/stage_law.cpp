#include "sim/cost/stage_law.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "models/core/count.h"
#include "models/core/error.h"
#include "sim/fit/least_squares.h"

namespace moecast {
namespace {

constexpr auto& kNodeBytes = StageLaw::kNodeBytes;
constexpr std::array<std::string_view, StageLaw::kByteNodes> kNodeNames{
    "s_per_byte_at_1MB", "s_per_byte_at_4MB", "s_per_byte_at_16MB", "s_per_byte_at_64MB", "s_per_byte_at_256MB"};

/// Keys that all new tokens see together; causal: each of the last `query` positions sees one more than the one before.
double visible_keys(const OperatorShape& s) {
  if (s.visible > 0) return value(s.batch) * value(s.visible);
  return value(s.batch) * (value(s.query) * value(s.context) - value(s.query) * (value(s.query) - 1) / 2);
}

/// Share of each node for a footprint: linear in ln F between two nodes, constant outside.
std::array<double, StageLaw::kByteNodes> hats(double footprint) {
  std::array<double, StageLaw::kByteNodes> share{};
  const auto upper = std::upper_bound(kNodeBytes.begin(), kNodeBytes.end(), footprint);
  if (upper == kNodeBytes.begin()) {
    share.front() = 1;
  } else if (upper == kNodeBytes.end()) {
    share.back() = 1;
  } else {
    const auto i = static_cast<std::size_t>(upper - kNodeBytes.begin());
    const double part = std::log(footprint / kNodeBytes[i - 1]) / std::log(kNodeBytes[i] / kNodeBytes[i - 1]);
    share[i - 1] = 1 - part;
    share[i] = part;
  }
  return share;
}

/// Rows of one head in a cache that holds several: read from memory in pieces that lie apart, each waits for itself.
/// Keys and values of a head that is alone follow each other and are fetched ahead.
struct Pieces {
  double count = 0;  ///< as far as they come from memory
  double bytes = 0;
};

Pieces pieces_of(const KernelPoint& point) {
  const OperatorShape& s = point.shape;
  if (point.kind != OperatorKind::attention_decode || s.kv_heads < 2) return {};
  const auto share = hats(std::max(point.footprint.value(), stage_bytes(point).value()));
  const double far = share[StageLaw::kByteNodes - 2] + share[StageLaw::kByteNodes - 1];
  const double keys = s.visible > 0 ? value(s.visible) : value(s.context);
  const double count = far * 2 * value(s.batch) * keys * value(s.kv_heads);
  return {count, count * value(s.head_dim) * bytes_per_element(point.dtype)};
}

/// Work terms without the bytes: a constant, then what this kind counts.
std::vector<double> work_terms(const KernelPoint& point) {
  const OperatorShape& s = point.shape;
  switch (point.kind) {
    case OperatorKind::router:
      return {1, value(s.tokens), value(s.tokens * s.experts), value(s.tokens * s.top_k),
              value(s.tokens * s.top_k) * value(s.experts)};
    case OperatorKind::permute:
    case OperatorKind::unpermute: return {1, value(s.tokens * s.top_k)};
    case OperatorKind::activation: return {1, value(s.m), value(s.m) * value(s.width)};
    case OperatorKind::norm: return {1, value(s.m), value(s.m) * value(s.hidden)};
    case OperatorKind::elementwise: return {1, value(s.m)};
    case OperatorKind::attention_prefill:
      return {1, value(s.batch) * value(s.query) * value(s.heads), visible_keys(s) * value(s.heads),
              visible_keys(s) * value(s.heads) * value(s.head_dim)};
    case OperatorKind::attention_decode: {
      const Pieces pieces = pieces_of(point);
      return {1,
              value(s.batch) * value(s.query) * value(s.heads),
              visible_keys(s) * value(s.heads),
              visible_keys(s) * value(s.heads) * value(s.head_dim),
              pieces.count,
              pieces.bytes};
    }
    default: return {1};
  }
}

std::vector<std::string_view> work_names(OperatorKind kind) {
  switch (kind) {
    case OperatorKind::router: return {"call_s", "s_per_token", "s_per_score", "s_per_choice", "s_per_compared_score"};
    case OperatorKind::permute:
    case OperatorKind::unpermute: return {"call_s", "s_per_row"};
    case OperatorKind::activation:
    case OperatorKind::norm: return {"call_s", "s_per_row", "s_per_element"};
    case OperatorKind::elementwise: return {"call_s", "s_per_row"};
    case OperatorKind::attention_prefill:
      return {"call_s", "s_per_query_head", "s_per_visible_key_head", "s_per_visible_key_element"};
    case OperatorKind::attention_decode:
      return {"call_s",
              "s_per_query_head",
              "s_per_visible_key_head",
              "s_per_visible_key_element",
              "s_per_piece_from_memory",
              "s_per_byte_in_pieces_from_memory"};
    default: return {"call_s"};
  }
}

Eigen::VectorXd terms(const KernelPoint& point) {
  const std::vector<double> work = work_terms(point);
  const double bytes = stage_bytes(point).value();
  const auto share = hats(std::max(point.footprint.value(), bytes));
  Eigen::VectorXd row(static_cast<Eigen::Index>(work.size()) + StageLaw::kByteNodes);
  for (std::size_t i = 0; i < work.size(); ++i) row(static_cast<Eigen::Index>(i)) = work[i];
  for (std::size_t i = 0; i < share.size(); ++i) {
    row(static_cast<Eigen::Index>(work.size() + i)) = bytes * share[i];
  }
  return row;
}

}  // namespace

Bytes stage_bytes(const KernelPoint& point) {
  const OperatorShape& s = point.shape;
  const double element = bytes_per_element(point.dtype);
  switch (point.kind) {
    case OperatorKind::router: return Bytes(4 * value(s.tokens * s.experts) + 8 * value(s.tokens * s.top_k));
    case OperatorKind::permute: return Bytes(value(s.tokens) * value(s.hidden) * value(s.top_k + 1) * element);
    case OperatorKind::unpermute: return Bytes(value(s.tokens) * value(s.hidden) * value(s.top_k + 1) * 4);
    case OperatorKind::activation: return Bytes(value(s.m) * value(s.width) * ((s.gated != 0 ? 8.0 : 4.0) + element));
    case OperatorKind::norm: return Bytes(value(s.m) * value(s.hidden) * (4 + element));
    case OperatorKind::elementwise: return Bytes(value(s.m) * value(s.width) * 12);
    case OperatorKind::attention_prefill:
    case OperatorKind::attention_decode:
      return Bytes((2 * value(s.batch) * value(s.context) * value(s.kv_heads) +
                    value(s.batch) * value(s.query) * value(s.heads)) *
                       value(s.head_dim) * element +
                   4 * value(s.batch) * value(s.query) * value(s.heads) * value(s.head_dim));
    case OperatorKind::copy: return Bytes(2 * value(s.bytes));
    case OperatorKind::read: return Bytes(value(s.bytes));
    default: return Bytes(0);
  }
}

Flops stage_flops(const KernelPoint& point) {
  if (point.kind != OperatorKind::attention_prefill && point.kind != OperatorKind::attention_decode) return Flops(0);
  return Flops(4 * visible_keys(point.shape) * value(point.shape.heads) * value(point.shape.head_dim));
}

std::vector<std::string_view> StageLaw::term_names(OperatorKind kind) {
  auto names = work_names(kind);
  names.insert(names.end(), kNodeNames.begin(), kNodeNames.end());
  return names;
}

StageLaw::StageLaw(OperatorKind kind, Eigen::VectorXd coefficients)
    : kind_(kind), coefficients_(std::move(coefficients)) {
  if (coefficients_.size() != static_cast<Eigen::Index>(term_names(kind).size())) {
    throw InputError("", std::string(to_string(kind)) + " has " + std::to_string(term_names(kind).size()) +
                             " coefficients, not " + std::to_string(coefficients_.size()));
  }
}

StageLaw StageLaw::fit(const std::vector<Measurement>& points) {
  const OperatorKind kind = points.front().point.kind;
  Eigen::MatrixXd x(static_cast<Eigen::Index>(points.size()), terms(points.front().point).size());
  for (std::size_t i = 0; i < points.size(); ++i) {
    x.row(static_cast<Eigen::Index>(i)) = terms(points[i].point).transpose() / points[i].latency.value();
  }
  // Columns differ by many orders of magnitude: scale each to unit length, solve, scale back.
  const Eigen::VectorXd scale = x.colwise().norm().transpose().cwiseMax(1e-300);
  const Eigen::MatrixXd unit = x * scale.cwiseInverse().asDiagonal();
  return StageLaw(kind, fit_non_negative(unit, Eigen::VectorXd::Ones(x.rows())).cwiseQuotient(scale));
}

Seconds StageLaw::seconds(const KernelPoint& point) const { return Seconds(terms(point).dot(coefficients_)); }

Seconds StageLaw::memory_seconds(const KernelPoint& point) const {
  const Eigen::Index from_memory = kByteNodes + (kind_ == OperatorKind::attention_decode ? kPieceTerms : 0);
  return Seconds(terms(point).tail(from_memory).dot(coefficients_.tail(from_memory)));
}

}  // namespace moecast
