#include "profiler/reference/oracle_blocks.h"

#include <algorithm>
#include <cmath>

#include "profiler/cpu/stages.h"
#include "profiler/reference/rows.h"

namespace moecast::oracle {
namespace {

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::relu: return std::max(x, 0.0);
    case Activation::relu_squared: return std::max(x, 0.0) * std::max(x, 0.0);
    case Activation::gelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::identity: return x;
  }
  return x;
}

void add_bias(const Step& step, Part part, std::int64_t expert, std::int64_t index, Table& x) {
  const Matrix bias =
      step.source->draw({.part = part, .copy = step.copy, .block = step.block, .expert = expert, .index = index}, 1,
                        x.cols(), kBiasAmplitude);
  for (Eigen::Index c = 0; c < x.cols(); ++c) x.col(c).array() += static_cast<double>(bias.at(0, c));
}

/// Hidden state of the heads of one sequence turned by its position (the two halves of a head form the pairs).
void turn(Table& x, std::int64_t heads, std::int64_t head_dim, std::int64_t first_position) {
  const std::int64_t half = head_dim / 2;
  for (Eigen::Index t = 0; t < x.rows(); ++t) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(first_position + t) *
                           std::pow(kRopeBase, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
      for (std::int64_t h = 0; h < heads; ++h) {
        const double a = x(t, h * head_dim + i);
        const double b = x(t, h * head_dim + half + i);
        x(t, h * head_dim + i) = a * std::cos(angle) - b * std::sin(angle);
        x(t, h * head_dim + half + i) = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
}

/// Attention of one head over its whole context; scores of later positions are masked.
Table attend(const Table& q, const Table& k, const Table& v) {
  Table scores = q * k.transpose() / std::sqrt(static_cast<double>(q.cols()));
  const Eigen::Index older = k.rows() - q.rows();
  for (Eigen::Index t = 0; t < q.rows(); ++t) {
    for (Eigen::Index s = older + t + 1; s < k.rows(); ++s) scores(t, s) = -1e300;
    scores.row(t).array() = (scores.row(t).array() - scores.row(t).maxCoeff()).exp();
    scores.row(t) /= scores.row(t).sum();
  }
  return scores * v;
}

Table router_logits(const Step& step, const RouterSpec& router, std::int64_t experts, const Table& x) {
  Table y = x;
  std::int64_t index = 0;
  for (const std::int64_t width :
       router.network == RouterNetwork::mlp ? router.mlp_widths : std::vector<std::int64_t>{}) {
    y = y * weights(step, Part::router, 0, index, y.cols(), width);
    if (router.linear_bias) add_bias(step, Part::router_bias, 0, index, y);
    y = rounded(y.unaryExpr([](double value) { return std::max(value, 0.0); }), step.dtype);
    ++index;
  }
  y = y * weights(step, Part::router, 0, index, y.cols(), experts);
  if (router.linear_bias) add_bias(step, Part::router_bias, 0, index, y);
  return y;
}

void add_noise(const Step& step, const RouterSpec& router, const Table& x, Table& logits) {
  const Matrix draws =
      step.source->normal({.part = Part::noise_draws, .block = step.block}, logits.rows(), logits.cols());
  Table stddev = Table::Constant(logits.rows(), logits.cols(), router.noise_strength);
  if (router.noise == NoiseKind::learned_gaussian) {
    const Table raw = x * weights(step, Part::noise, 0, 0, x.cols(), logits.cols());
    stddev = raw.unaryExpr([](double value) { return std::log1p(std::exp(value)); }).array() + router.noise_strength;
  }
  logits.array() += to_table(draws, DType::fp32).array() * stddev.array();
}

std::vector<ExpertSpec> listed_experts(const MoeBlock& block) {
  std::vector<ExpertSpec> out;
  for (const ExpertGroup& group : block.experts)
    out.insert(out.end(), static_cast<std::size_t>(group.count), group.expert);
  return out;
}

}  // namespace

Table to_table(const Matrix& matrix, DType dtype) {
  Table out(matrix.rows, matrix.cols);
  for (std::int64_t r = 0; r < matrix.rows; ++r) {
    for (std::int64_t c = 0; c < matrix.cols; ++c) out(r, c) = round_to(matrix.at(r, c), dtype);
  }
  return out;
}

Table rounded(const Table& table, DType dtype) {
  return table.unaryExpr(
      [dtype](double value) { return static_cast<double>(round_to(static_cast<float>(value), dtype)); });
}

Matrix to_matrix(const Table& table) {
  Matrix out(table.rows(), table.cols());
  for (std::int64_t r = 0; r < out.rows; ++r) {
    for (std::int64_t c = 0; c < out.cols; ++c) out.at(r, c) = static_cast<float>(table(r, c));
  }
  return out;
}

Table weights(const Step& step, Part part, std::int64_t expert, std::int64_t index, std::int64_t inputs,
              std::int64_t outputs) {
  const WeightKey key{.part = part, .copy = step.copy, .block = step.block, .expert = expert, .index = index};
  return to_table(step.source->weights(key, inputs, outputs), step.dtype);
}

Table ffn(const Step& step, const ExpertSpec& spec, const FfnParts& parts, const Table& x) {
  if (spec.kind == ExpertKind::identity) return x;
  Table y = x;
  for (int depth = 0; depth < spec.depth; ++depth) {
    y = rounded(y, step.dtype);
    const std::int64_t outputs = spec.output != 0 ? spec.output : x.cols();
    Table h = y * weights(step, parts.up, parts.expert, depth, y.cols(), spec.gated ? 2 * spec.width : spec.width);
    if (spec.bias) add_bias(step, parts.up_bias, parts.expert, depth, h);
    Table a = h.leftCols(spec.width).unaryExpr([&](double value) { return activate(spec.activation, value); });
    if (spec.gated) a = a.cwiseProduct(h.rightCols(spec.width));
    y = rounded(a, step.dtype) * weights(step, parts.down, parts.expert, depth, spec.width, outputs);
    if (spec.bias) add_bias(step, parts.down_bias, parts.expert, depth, y);
  }
  return y;
}

Table attention(const Step& step, const AttentionBlock& block, const Table& x) {
  const std::int64_t d = block.head_dim;
  const std::int64_t kv = block.kv_heads * d;
  const Table qkv = x * weights(step, Part::qkv, 0, 0, x.cols(), block.heads * d + 2 * kv);
  const WeightKey key{.part = Part::key_cache, .copy = step.copy, .block = step.block};
  WeightKey value = key;
  value.part = Part::value_cache;
  const Table old_keys = to_table(step.source->draw(key, step.batch * step.context, kv, 1), step.dtype);
  const Table old_values = to_table(step.source->draw(value, step.batch * step.context, kv, 1), step.dtype);
  Table out(x.rows(), block.heads * d);
  for (std::int64_t b = 0; b < step.batch; ++b) {
    const Table rows = qkv.middleRows(b * step.query, step.query);
    Table q = rows.leftCols(block.heads * d);
    Table k = rows.middleCols(block.heads * d, kv);
    turn(q, block.heads, d, step.context);
    turn(k, block.kv_heads, d, step.context);
    Table keys(step.context + step.query, kv);
    keys << old_keys.middleRows(b * step.context, step.context), rounded(k, step.dtype);
    Table values(step.context + step.query, kv);
    values << old_values.middleRows(b * step.context, step.context), rounded(rows.rightCols(kv), step.dtype);
    for (std::int64_t h = 0; h < block.heads; ++h) {
      const std::int64_t shared = h / (block.heads / block.kv_heads) * d;
      out.block(b * step.query, h * d, step.query, d) =
          attend(q.middleCols(h * d, d), keys.middleCols(shared, d), values.middleCols(shared, d));
    }
  }
  return rounded(out, step.dtype) * weights(step, Part::attention_out, 0, 0, block.heads * d, x.cols());
}

Table moe(const Step& step, const MoeBlock& block, const std::vector<float>& shift, const Table& x,
          OracleResult& result) {
  const std::int64_t experts = block.expert_count();
  Table logits = router_logits(step, block.router, experts, x);
  if (step.training) add_noise(step, block.router, x, logits);
  Matrix shifted = to_matrix(logits);
  for (std::size_t i = 0; i < shift.size(); ++i) shifted.values[i] += shift[i];
  Matrix bias;
  if (block.router.selection_bias) {
    bias = step.source->draw({.part = Part::selection_bias, .copy = step.copy, .block = step.block}, 1, experts,
                             kSelectionBiasAmplitude);
  }
  const OracleRoute route = oracle_route(block.router, block.capacity, shifted, bias.values);
  const std::vector<ExpertSpec> specs = listed_experts(block);
  const std::int64_t width = specs.front().output != 0 ? specs.front().output : x.cols();
  Table out = Table::Zero(x.rows(), width);
  for (std::int64_t e = 0; e < experts; ++e) {
    const Table y = ffn(step, specs[static_cast<std::size_t>(e)], {.expert = e}, x);
    for (Eigen::Index t = 0; t < x.rows(); ++t) {
      if (!route.runs[static_cast<std::size_t>(t)][static_cast<std::size_t>(e)]) continue;
      out.row(t) += static_cast<double>(route.gates.at(t, e)) * y.row(t);
      result.combine_elements_read += static_cast<double>(width);
    }
  }
  result.combine_elements_written += static_cast<double>(x.rows() * width);
  if (block.shared.count > 0) {
    ExpertSpec shared = block.shared.expert;
    shared.width *= block.shared.count;
    Table y = ffn(step, shared, {.up = Part::shared_up, .down = Part::shared_down}, x);
    if (block.shared.gate) {
      const Table gate = x * weights(step, Part::shared_gate, 0, 0, x.cols(), 1);
      for (Eigen::Index t = 0; t < y.rows(); ++t) y.row(t) /= 1 + std::exp(-gate(t, 0));
    }
    out += y;
  }
  if (block.dense_residual) {
    out += ffn(step, *block.dense_residual, {.up = Part::residual_up, .down = Part::residual_down}, x);
  }
  result.routes.push_back(route);
  return out;
}

Table norm(const Step& step, std::int64_t index, const Table& x) {
  const WeightKey key{.part = Part::norm, .copy = step.copy, .block = step.block, .index = index};
  const Matrix weight = norm_weight(*step.source, key, x.cols());
  Table out = x;
  for (Eigen::Index t = 0; t < x.rows(); ++t) {
    const double scale = 1 / std::sqrt(x.row(t).squaredNorm() / static_cast<double>(x.cols()) + kNormEpsilon);
    for (Eigen::Index c = 0; c < x.cols(); ++c) out(t, c) = x(t, c) * scale * static_cast<double>(weight.at(0, c));
  }
  return rounded(out, step.dtype);
}

}  // namespace moecast::oracle
