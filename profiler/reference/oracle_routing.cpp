#include "profiler/reference/oracle_routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moecast {
namespace {

using Row = std::vector<double>;

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

Row softmax(Row values) {
  const double top = *std::ranges::max_element(values);
  double sum = 0;
  for (double& value : values) sum += value = std::exp(value - top);
  for (double& value : values) value /= sum;
  return values;
}

Row scores_of(ScoreFunction function, const Row& logits) {
  if (function == ScoreFunction::softmax) return softmax(logits);
  Row out;
  for (const double x : logits) {
    const double softplus = x > 30 ? x : std::log1p(std::exp(x));
    out.push_back(function == ScoreFunction::sigmoid ? 1 / (1 + std::exp(-x)) : std::sqrt(softplus));
  }
  return out;
}

std::vector<std::int64_t> ranking(const Row& keys) {
  std::vector<std::int64_t> order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) { return keys[at(a)] > keys[at(b)]; });
  return order;
}

/// Removes experts outside the best groups. A group's worth: its two best keys together where there is a selection
/// bias (DeepSeek-V3), else its best key (DeepSeek-V2).
void limit_groups(const RouterSpec& router, bool biased, Row& keys) {
  if (router.top_groups >= router.groups) return;
  const std::size_t size = keys.size() / at(router.groups);
  Row worth;
  for (std::size_t g = 0; g < at(router.groups); ++g) {
    Row group(keys.begin() + static_cast<std::ptrdiff_t>(g * size),
              keys.begin() + static_cast<std::ptrdiff_t>((g + 1) * size));
    std::ranges::sort(group, std::greater<>());
    worth.push_back(biased && size > 1 ? group[0] + group[1] : group[0]);
  }
  const std::vector<std::int64_t> order = ranking(worth);
  for (std::size_t rank = at(router.top_groups); rank < order.size(); ++rank) {
    for (std::size_t e = 0; e < size; ++e) keys[at(order[rank]) * size + e] = -1e300;
  }
}

/// Weight of every expert if it were chosen, before renormalisation and scale; and the key that it is chosen by.
struct TokenScores {
  Row keys;
  Row weights;
};

TokenScores score_token(const RouterSpec& router, const Row& logits, std::span<const float> bias) {
  TokenScores out;
  out.weights = scores_of(router.score, logits);
  out.keys = router.order == ScoreOrder::top_k_then_score ? logits : out.weights;
  for (std::size_t e = 0; e < bias.size(); ++e) out.keys[e] += static_cast<double>(bias[e]);
  limit_groups(router, !bias.empty(), out.keys);
  return out;
}

/// Divisor of the weights of a token that chose `chosen`.
double normaliser(const RouterSpec& router, const TokenScores& token, const std::vector<std::int64_t>& chosen) {
  const bool over_chosen =
      router.renormalise || (router.order == ScoreOrder::top_k_then_score && router.score == ScoreFunction::softmax);
  if (!over_chosen) return 1;
  double sum = 0;
  for (const std::int64_t e : chosen) sum += token.weights[at(e)];
  return sum;
}

OracleRoute empty_route(std::int64_t tokens, std::int64_t experts) {
  OracleRoute out;
  out.gates = Matrix(tokens, experts);
  out.runs.assign(at(tokens), std::vector<bool>(at(experts), false));
  out.rows.assign(at(experts), 0);
  return out;
}

void assign(OracleRoute& route, std::int64_t token, std::int64_t expert, double gate) {
  route.gates.at(token, expert) = static_cast<float>(gate);
  route.runs[at(token)][at(expert)] = true;
  ++route.rows[at(expert)];
}

Row token_logits(const Matrix& logits, std::int64_t token) {
  return {logits.row(token).begin(), logits.row(token).end()};
}

/// Every expert takes its best `slots` tokens.
OracleRoute expert_choice(const RouterSpec& router, const Matrix& logits, std::int64_t slots) {
  OracleRoute out = empty_route(logits.rows, logits.cols);
  std::vector<Row> affinity(at(logits.cols));
  for (std::int64_t t = 0; t < logits.rows; ++t) {
    const Row scores = scores_of(router.score, token_logits(logits, t));
    for (std::int64_t e = 0; e < logits.cols; ++e) affinity[at(e)].push_back(scores[at(e)]);
  }
  for (std::int64_t e = 0; e < logits.cols; ++e) {
    const std::vector<std::int64_t> order = ranking(affinity[at(e)]);
    for (std::int64_t s = 0; s < slots; ++s) {
      assign(out, order[at(s)], e, affinity[at(e)][at(order[at(s)])] * router.scale);
    }
  }
  out.demanded = slots * logits.cols;
  return out;
}

}  // namespace

std::optional<std::int64_t> oracle_capacity(const CapacitySpec& capacity, std::int64_t tokens, int top_k,
                                            std::int64_t experts) {
  if (!capacity.limited()) return std::nullopt;
  std::int64_t slots = capacity.absolute.value_or(0);
  if (!capacity.absolute) {
    const double factor = capacity.eval_factor ? *capacity.eval_factor : *capacity.train_factor;
    const double exact =
        factor * static_cast<double>(tokens) * (capacity.factor_of_top_k ? top_k : 1) / static_cast<double>(experts);
    slots =
        static_cast<std::int64_t>(capacity.rounding == CapacityRounding::ceil ? std::ceil(exact) : std::floor(exact));
  }
  return std::min(tokens, std::max(slots, capacity.minimum));
}

OracleRoute oracle_route(const RouterSpec& router, const CapacitySpec& capacity, const Matrix& logits,
                         std::span<const float> bias) {
  const std::int64_t experts = logits.cols;
  const std::optional<std::int64_t> limit = oracle_capacity(capacity, logits.rows, router.top_k, experts);
  if (router.kind == RouterKind::expert_choice) {
    const std::int64_t even = (logits.rows * router.top_k + experts - 1) / experts;
    return expert_choice(router, logits, limit.value_or(std::min(even, logits.rows)));
  }
  OracleRoute out = empty_route(logits.rows, experts);
  const std::int64_t slots = limit.value_or(logits.rows);
  const std::int64_t k = router.kind == RouterKind::soft ? experts : router.top_k;
  out.demanded = logits.rows * k;
  for (std::int64_t t = 0; t < logits.rows; ++t) {
    const TokenScores token = score_token(router, token_logits(logits, t), bias);
    const std::vector<std::int64_t> order = ranking(token.keys);
    const std::vector<std::int64_t> chosen(order.begin(), order.begin() + k);
    const double divisor = normaliser(router, token, chosen) / router.scale;
    for (const std::int64_t wanted : chosen) {
      if (out.rows[at(wanted)] < slots) {
        assign(out, t, wanted, token.weights[at(wanted)] / divisor);
        continue;
      }
      bool placed = false;
      if (capacity.overflow == Overflow::next_best) {
        for (auto next = order.begin() + k; next != order.end() && !placed; ++next) {
          if (out.runs[at(t)][at(*next)] || out.rows[at(*next)] >= slots) continue;
          assign(out, t, *next, token.weights[at(*next)] / divisor);
          placed = true;
        }
      }
      if (!placed) ++out.dropped;
    }
  }
  return out;
}

}  // namespace moecast
