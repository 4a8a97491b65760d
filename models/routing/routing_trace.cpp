#include "models/routing/routing_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

constexpr std::int64_t kMostTraceExperts = 65'536;
constexpr std::int64_t kMostLayers = 65'536;
constexpr std::size_t kMostTopK = 4'096;
/// 128 MiB of counters: no model has a hundredth of it.
constexpr std::size_t kMostCounters = std::size_t{1} << 24;
constexpr std::int64_t kMostTraceTokens = std::int64_t{1} << 53;

/// Beyond, a share of the tokens says no more about a weight: it grows without bound.
constexpr double kNearlyCertain = 1 - 1e-5;

std::string shown(std::string_view cell) {
  std::string text(cell.substr(0, 40));
  std::ranges::replace_if(text, [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

}  // namespace

void RoutingTraceLines::refuse(const std::string& what, const std::string& hint) const {
  throw InputError(fmt::format("{}: line {}", where_, number_), what, hint);
}

std::int64_t RoutingTraceLines::number(std::string_view cell, std::string_view column, std::int64_t high) const {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size() || value < 0 || value >= high) {
    refuse(fmt::format("{}: \"{}\" is no whole number from 0 to {}", column, shown(cell), high - 1),
           cell.empty() ? "is the file cut short?" : "");
  }
  return value;
}

void RoutingTraceLines::read_header(std::string_view line) {
  const auto& cells = cells_.split(line);
  const auto names_expert = [](std::string_view cell) { return cell.starts_with("expert"); };
  if (cells.size() < 3 || cells[0] != "layer" || cells[1] != "token" ||
      !std::all_of(cells.begin() + 2, cells.end(), names_expert)) {
    refuse(fmt::format("\"{}\" is no header of a recorded routing", shown(line)),
           "write layer,token,expert_0,expert_1,... or JSON lines {\"layer\": 0, \"token\": 0, \"experts\": [3, 7]}");
  }
  if (cells.size() - 2 > kMostTopK) refuse(fmt::format("{} experts a token", cells.size() - 2), "at most 4096");
  columns_ = cells.size();
}

void RoutingTraceLines::parse_csv(std::string_view line) {
  const auto& cells = cells_.split(line);
  if (cells.size() != columns_) {
    refuse(fmt::format("has {} cells, the header {}", cells.size(), columns_), "is the file cut short?");
  }
  token_.layer = static_cast<int>(number(cells[0], "layer", kMostLayers));
  token_.token = number(cells[1], "token", kMostTraceTokens);
  token_.experts.clear();
  for (std::size_t i = 2; i < cells.size(); ++i) {
    token_.experts.push_back(static_cast<std::int32_t>(number(cells[i], "expert", kMostTraceExperts)));
  }
}

void RoutingTraceLines::parse_object(std::string_view line) {
  const std::string where = fmt::format("{}: line {}", where_, number_);
  const Json json = parse_json(line, where);
  const JsonView view(json, where);
  view.refuse_unknown_keys({"layer", "token", "experts"});
  token_.layer = static_cast<int>(view.at("layer").as_int(0, kMostLayers - 1));
  token_.token = view.at("token").as_int(0, kMostTraceTokens - 1);
  const JsonView experts = view.at("experts");
  if (!experts.is_array() || experts.size() == 0 || experts.size() > kMostTopK) {
    refuse("experts: is no array of 1 to 4096 experts");
  }
  token_.experts.clear();
  for (std::size_t i = 0; i < experts.size(); ++i) {
    token_.experts.push_back(static_cast<std::int32_t>(experts.at(i).as_int(0, kMostTraceExperts - 1)));
  }
}

void RoutingTraceLines::check_experts() {
  const std::vector<std::int32_t>& experts = token_.experts;
  if (top_k_ == 0) top_k_ = static_cast<int>(experts.size());
  if (std::ssize(experts) != top_k_) {
    refuse(fmt::format("a token with {} experts, the first one has {}", experts.size(), top_k_));
  }
  for (std::size_t i = 1; i < experts.size(); ++i) {
    if (std::find(experts.begin(), experts.begin() + static_cast<std::ptrdiff_t>(i), experts[i]) !=
        experts.begin() + static_cast<std::ptrdiff_t>(i)) {
      refuse(fmt::format("expert {} twice", experts[i]), "a token chooses distinct experts");
    }
  }
}

void RoutingTraceLines::check_order() {
  const int layer = token_.layer;
  if (layers_.empty() || layer > layers_.back()) {
    const bool going_on = layers_.empty() || (first_pass_ && layer_ + 1 == layers_.size());
    if (!going_on)
      refuse(fmt::format("layer {} was not there when layers began", layer), "all steps have the same layers");
    layers_.push_back(layer);
    last_token_.push_back(-1);
    layer_ = layers_.size() - 1;
  } else if (layer != layers_[layer_]) {
    const auto found = std::lower_bound(layers_.begin(), layers_.end(), layer);
    if (*found != layer)
      refuse(fmt::format("layer {} was not there when layers began", layer), "all steps have the same layers");
    const auto at = static_cast<std::size_t>(found - layers_.begin());
    if (at < layer_ && at != 0) {
      refuse(fmt::format("layer {} comes after layer {}", layer, layers_[layer_]),
             fmt::format("layers ascend, and start over at layer {}", layers_.front()));
    }
    first_pass_ = first_pass_ && at > layer_;
    layer_ = at;
  }
  if (token_.token <= last_token_[layer_]) {
    refuse(fmt::format("token {} of layer {} comes after token {}", token_.token, layer, last_token_[layer_]),
           "tokens of a layer ascend");
  }
  last_token_[layer_] = token_.token;
}

const RoutedToken* RoutingTraceLines::parse(std::uint64_t number, std::string_view line) {
  number_ = number;
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.empty()) return nullptr;
  if (columns_ == 0 && !json_) {
    json_ = line.front() == '{';
    if (!json_) {
      read_header(line);
      return nullptr;
    }
  }
  token_.line = number;
  if (json_) {
    parse_object(line);
  } else {
    parse_csv(line);
  }
  check_experts();
  check_order();
  return &token_;
}

void RoutingTrace::count(const RoutedToken& token, std::size_t layer) {
  if (layer >= rows.size()) {
    rows.resize(layer + 1);
    tokens.resize(layer + 1, 0);
  }
  const std::int32_t highest = *std::ranges::max_element(token.experts);
  if (highest > highest_expert) {
    highest_expert = highest;
    highest_line = token.line;
  }
  if ((static_cast<std::size_t>(highest_expert) + 1) * rows.size() > kMostCounters) {
    throw InputError(fmt::format("{}: line {}", path, token.line),
                     fmt::format("{} layers of {} experts", rows.size(), highest_expert + 1), "at most 2^24 together");
  }
  std::vector<std::int64_t>& own = rows[layer];
  if (std::ssize(own) <= highest) own.resize(static_cast<std::size_t>(highest) + 1, 0);
  for (const std::int32_t expert : token.experts) ++own[static_cast<std::size_t>(expert)];
  ++tokens[layer];
}

RoutingTrace read_routing_trace(const std::string& path) {
  RoutingTrace trace;
  trace.path = path;
  RoutingTraceLines lines(path);
  read_lines(path, [&](std::uint64_t number, std::string_view line) {
    if (const RoutedToken* token = lines.parse(number, line)) trace.count(*token, lines.layer_index());
  });
  if (trace.rows.empty()) throw InputError(path, "holds no token", "layer,token,expert_0,... and a line a token");
  trace.top_k = lines.top_k();
  trace.layers = lines.layers();
  return trace;
}

std::vector<double> popularity_of_inclusion(std::span<const double> inclusion, int top_k, Inclusion how) {
  if (top_k == 1) return {inclusion.begin(), inclusion.end()};
  // Choosing k by weight is a race of exponential clocks, of which each has rung with 1 - exp(-w): invert that.
  const auto odds = [](double p) { return -std::log1p(-std::min(p, kNearlyCertain)); };
  std::vector<double> weights(inclusion.size());
  std::ranges::transform(inclusion, weights.begin(), odds);
  constexpr int kRounds = 200;
  constexpr double kClose = 1e-4;
  for (int round = 0; round < kRounds; ++round) {
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (double& w : weights) w /= sum;
    const std::vector<double> now = inclusion_probability(weights, top_k, how);
    double worst = 0;
    for (std::size_t e = 0; e < weights.size(); ++e) {
      worst = std::max(worst, std::abs(now[e] / inclusion[e] - 1));
      // The odds of clocks: they go on growing where the probability is near one.
      weights[e] *= odds(inclusion[e]) / odds(now[e]);
    }
    if (worst < kClose) break;
  }
  return weights;
}

namespace {

void check_trace(const RoutingTrace& trace, std::int64_t experts) {
  if (trace.highest_expert >= experts) {
    throw InputError(fmt::format("{}: line {}", trace.path, trace.highest_line),
                     fmt::format("expert {}; the model has {}", trace.highest_expert, experts),
                     "is it the trace of another model?");
  }
  if (trace.top_k > experts) {
    throw InputError(trace.path, fmt::format("holds {} experts a token; the model has {}", trace.top_k, experts));
  }
}

/// Share of the tokens that chose each expert. One that was never chosen counts half a token.
std::vector<double> chosen_share(const RoutingTrace& trace, std::size_t layer, std::int64_t experts) {
  const auto tokens = static_cast<double>(trace.tokens[layer]);
  std::vector<double> share(static_cast<std::size_t>(experts), 0.0);
  std::ranges::copy(trace.rows[layer], share.begin());
  for (double& rows : share) rows = std::clamp(rows, 0.5, std::max(0.5, tokens - 0.5)) / tokens;
  return share;
}

std::vector<double> popularity_of_share(std::vector<double> share, int top_k, Inclusion how) {
  if (top_k == std::ssize(share)) return std::vector<double>(share.size(), 1.0);
  const double sum = std::accumulate(share.begin(), share.end(), 0.0);
  for (double& p : share) p = std::min(p * top_k / sum, kNearlyCertain);
  return popularity_of_inclusion(share, top_k, how);
}

void add_layer(std::vector<double>& mean, const std::vector<double>& share, std::size_t layers) {
  for (std::size_t e = 0; e < mean.size(); ++e) mean[e] += share[e] / static_cast<double>(layers);
}

}  // namespace

std::vector<double> trace_popularity(const RoutingTrace& trace, std::int64_t experts) {
  check_trace(trace, experts);
  std::vector<double> mean(static_cast<std::size_t>(experts), 0.0);
  for (std::size_t layer = 0; layer < trace.rows.size(); ++layer) {
    std::vector<double> share = chosen_share(trace, layer, experts);
    std::ranges::sort(share, std::greater<>());
    add_layer(mean, share, trace.rows.size());
  }
  return popularity_of_share(std::move(mean), trace.top_k, Inclusion::quick);
}

std::vector<double> recorded_popularity(const RoutingTrace& trace, std::int64_t experts,
                                        std::optional<std::size_t> layer) {
  check_trace(trace, experts);
  if (layer) return popularity_of_share(chosen_share(trace, *layer, experts), trace.top_k, Inclusion::exact);
  std::vector<double> mean(static_cast<std::size_t>(experts), 0.0);
  for (std::size_t i = 0; i < trace.rows.size(); ++i)
    add_layer(mean, chosen_share(trace, i, experts), trace.rows.size());
  return popularity_of_share(std::move(mean), trace.top_k, Inclusion::exact);
}

std::vector<double> recorded_shares(const RoutingTrace& trace, std::int64_t experts, std::size_t layer) {
  check_trace(trace, experts);
  std::vector<double> share(static_cast<std::size_t>(experts), 0.0);
  for (std::size_t e = 0; e < trace.rows[layer].size(); ++e)
    share[e] = static_cast<double>(trace.rows[layer][e]) / static_cast<double>(trace.tokens[layer]);
  return share;
}

std::int64_t trace_windows(const RoutingTrace& trace, std::int64_t tokens) {
  const std::int64_t shortest = *std::ranges::min_element(trace.tokens);
  if (shortest < tokens) {
    throw InputError(trace.path, fmt::format("holds {} tokens a layer, a step has {}", shortest, tokens),
                     "fewer tokens in the step, or a longer trace");
  }
  return shortest / tokens;
}

void read_trace_windows(const std::string& path, int experts, std::int64_t tokens, std::int64_t windows,
                        const std::function<bool(std::size_t layer, std::int64_t window, Assignment&)>& each) {
  struct Pending {
    Assignment window;
    std::int64_t done = 0;
  };
  std::vector<Pending> layers;
  RoutingTraceLines lines(path);
  read_lines_while(path, [&](std::uint64_t number, std::string_view line) {
    const RoutedToken* token = lines.parse(number, line);
    if (token == nullptr) return true;
    const std::size_t at = lines.layer_index();
    if (at >= layers.size()) layers.resize(at + 1);
    Pending& pending = layers[at];
    if (pending.done >= windows) return true;
    for (const std::int32_t expert : token->experts) {
      if (expert < experts) continue;
      throw InputError(fmt::format("{}: line {}", path, number),
                       fmt::format("expert {}; the model has {}", expert, experts),
                       "is it the trace of another model?");
    }
    Assignment& window = pending.window;
    window.experts = experts;
    if (window.first.empty()) window.first.push_back(0);
    window.expert.insert(window.expert.end(), token->experts.begin(), token->experts.end());
    window.end_token();
    if (static_cast<std::int64_t>(window.tokens()) < tokens) return true;
    const bool more = each(at, pending.done, window);
    ++pending.done;
    window.expert.clear();
    window.first.clear();
    return more;
  });
}

}  // namespace moecast
