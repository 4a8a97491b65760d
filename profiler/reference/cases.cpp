#include "profiler/reference/cases.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "models/core/count.h"
#include "models/core/error.h"

namespace moecast {
namespace {

constexpr std::array<std::pair<double, double>, 3> kBands{{{1, 16}, {17, 256}, {257, 2048}}};

constexpr int kMostTries = 20'000;

[[noreturn]] void refuse_limits() {
  throw UsageError("", "no case of these ranges is as small as the limits of weights and FLOPs ask",
                   "allow larger cases");
}

class Draw {
 public:
  explicit Draw(std::uint64_t seed) : generator_(seed) {}
  double uniform(double low = 0, double high = 1) {
    return std::uniform_real_distribution<double>(low, high)(generator_);
  }
  std::int64_t log_uniform(double low, double high) {
    return std::llround(std::exp(uniform(std::log(low), std::log(high))));
  }
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(generator_);
  }
  template <std::size_t N>
  double one_of(const std::array<double, N>& values) {
    return values[static_cast<std::size_t>(integer(0, N - 1))];
  }
  std::int64_t width(double low, double high, std::int64_t step) {
    const double value = std::exp(uniform(std::log(low), std::log(high)));
    if (uniform() < 0.3) return std::llround(std::exp2(std::round(std::log2(value))));
    return std::max<std::int64_t>(step, std::llround(value / static_cast<double>(step)) * step);
  }

 private:
  std::mt19937_64 generator_;
};

MoeBlock draw_moe(Draw& draw, std::int64_t most_width) {
  MoeBlock moe;
  ExpertSpec expert;
  expert.gated = draw.uniform() < 0.7;
  expert.activation = expert.gated ? Activation::silu : Activation::relu;
  expert.width = draw.width(128, value(most_width), 32);
  const std::int64_t experts = draw.log_uniform(4, 64);
  moe.experts = {{experts, expert, ""}};
  moe.router.top_k = static_cast<int>(draw.integer(1, std::min<std::int64_t>(8, experts)));
  moe.router.order = ScoreOrder::top_k_then_score;
  return moe;
}

double layer_elements(const MoeBlock& moe, std::int64_t hidden) {
  const ExpertSpec& e = moe.experts.front().expert;
  return value(moe.expert_count()) * value(e.width) * value(hidden) * (e.gated ? 3 : 2);
}

/// FLOPs of the experts as the strategy computes them.
double layer_flops(const MoeBlock& moe, std::int64_t hidden, std::int64_t tokens, KernelStrategy strategy) {
  const double per_row = 2 * layer_elements(moe, hidden) / value(moe.expert_count());
  double rows = value(tokens) * moe.router.top_k;
  if (strategy == KernelStrategy::dense_mask) rows = value(tokens * moe.expert_count());
  if (strategy == KernelStrategy::capacity_padded) rows *= 3;  // skew fills the others up to the fullest
  return rows * per_row;
}

void draw_load(Draw& draw, Workload& workload) {
  const double exponent = draw.one_of(std::array{0.0, 0.0, 0.5, 1.0, 1.5});
  workload.load.kind = exponent > 0 ? LoadKind::zipf : LoadKind::uniform;
  workload.load.parameter = exponent;
  workload.load.seed = static_cast<std::uint64_t>(draw.integer(1, 1'000'000));
}

ValidationCase draw_layer(Draw& draw, const CaseOptions& options, const KernelSetting& c, KernelStrategy strategy,
                          int band, const std::string& stratum) {
  for (int tries = 0; tries < kMostTries; ++tries) {
    ValidationCase made;
    made.stratum = stratum;
    Architecture& a = made.architecture;
    a.hidden = draw.width(256, 4096, 64);
    MoeBlock moe = draw_moe(draw, 8192);
    const auto [low, high] = kBands[static_cast<std::size_t>(band)];
    Workload& w = made.workload;
    w.batch = draw.log_uniform(low, high);
    draw_load(draw, w);
    if (draw.uniform() < 0.25) moe.capacity.eval_factor = draw.one_of(std::array{0.5, 1.0, 1.25, 2.0});
    const double weights = layer_elements(moe, a.hidden) * bytes_per_weight(c.dtype);
    if (weights > options.most_weight_bytes) continue;
    if (layer_flops(moe, a.hidden, w.batch, strategy) > options.most_flops) continue;
    w.copies = static_cast<std::int64_t>(draw.one_of(std::array{1.0, 1.0, 1.0, 2.0, 4.0, 16.0}));
    while (w.copies > 1 && weights * value(w.copies) > 1.5 * options.most_weight_bytes) w.copies /= 2;
    a.name = "layer";
    a.dtype = c.dtype;
    a.decoder = {{{moe}}};
    made.deployment.backend = c.backend;
    made.deployment.dtype = c.dtype;
    made.deployment.threads = c.threads;
    made.deployment.strategy = strategy;
    return made;
  }
  refuse_limits();
}

ValidationCase draw_transformer(Draw& draw, const CaseOptions& options, const KernelSetting& c, bool prefill) {
  for (int tries = 0; tries < kMostTries; ++tries) {
    ValidationCase made;
    made.stratum = "transformers";
    Architecture& a = made.architecture;
    a.name = "transformer";
    a.dtype = c.dtype;
    AttentionBlock attention;
    attention.head_dim = draw.uniform() < 0.5 ? 64 : 128;
    attention.kv_heads = draw.integer(1, 4);
    attention.heads = attention.kv_heads * draw.integer(1, 4);
    a.hidden = draw.width(256, 2048, 64);
    a.vocabulary = draw.uniform() < 0.5 ? 0 : draw.log_uniform(1000, 16000);
    const MoeBlock moe = draw_moe(draw, 2048);
    const auto layers = draw.integer(4, 12);
    a.decoder.assign(static_cast<std::size_t>(layers), Layer{{attention, moe}});
    Workload& w = made.workload;
    draw_load(draw, w);
    if (prefill) {
      w.phase = Phase::prefill;
      w.batch = draw.log_uniform(1, 4);
      w.prompt = draw.log_uniform(16, 512);
    } else {
      w.batch = draw.log_uniform(1, 64);
      w.context = draw.log_uniform(16, 2048);
    }
    const std::int64_t tokens = prefill ? w.batch * w.prompt : w.batch;
    const double weights = value(layers) * layer_elements(moe, a.hidden) * bytes_per_weight(c.dtype);
    const double cache = 2 * value(layers) * value(w.batch) * value(w.context + w.prompt) *
                         value(attention.kv_heads * attention.head_dim) * bytes_per_element(c.dtype);
    if (weights + cache > options.most_weight_bytes) continue;
    if (value(layers) * layer_flops(moe, a.hidden, tokens, KernelStrategy::sorted_grouped) > options.most_flops)
      continue;
    made.deployment.backend = c.backend;
    made.deployment.dtype = c.dtype;
    made.deployment.threads = c.threads;
    return made;
  }
  refuse_limits();
}

std::string strategy_stratum(KernelStrategy strategy) {
  std::string name(to_string(strategy));
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

}  // namespace

std::string setting_stratum(const KernelSetting& c) {
  if (c.threads > 1) return std::to_string(c.threads) + " threads";
  return c.backend + " " + std::string(to_string(c.dtype)) + ", 1 thread";
}

std::vector<ValidationCase> draw_cases(const CaseOptions& options) {
  std::vector<ValidationCase> cases;
  if (options.combinations.empty()) return cases;
  Draw draw(options.seed);
  const std::size_t combinations = options.combinations.size();
  for (int turn = 0; static_cast<int>(cases.size()) < options.cases; ++turn) {
    const auto full = [&] { return static_cast<int>(cases.size()) >= options.cases; };
    const int band = turn % 3;
    for (const KernelSetting& c : options.combinations) {
      if (full()) break;
      cases.push_back(draw_layer(draw, options, c, KernelStrategy::sorted_grouped, band, setting_stratum(c)));
    }
    const KernelSetting& c = options.combinations[static_cast<std::size_t>(turn) % combinations];
    if (options.strategies) {
      for (const KernelStrategy strategy :
           {KernelStrategy::per_expert_loop, KernelStrategy::capacity_padded, KernelStrategy::dense_mask}) {
        if (full()) break;
        cases.push_back(draw_layer(draw, options, c, strategy, band, strategy_stratum(strategy)));
      }
    }
    if (options.transformers && !full()) cases.push_back(draw_transformer(draw, options, c, turn % 2 == 0));
  }
  return cases;
}

}  // namespace moecast
