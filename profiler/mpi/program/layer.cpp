#include "profiler/mpi/program/layer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>

#include "profiler/cpu/stages.h"
#include "profiler/mpi/program/transport.h"

namespace moecast {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Evenly spread in [-0.5, 0.5).
std::vector<float> noise(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.uniform()) - 0.5F;
  return values;
}

std::string usual_backend() { return gemm_supports("onednn", DType::fp32) ? "onednn" : "eigen"; }

std::vector<char> pack(const Gemm& gemm, const std::vector<float>& weights) {
  std::vector<char> packed(gemm.packed_bytes());
  gemm.pack(weights.data(), packed.data());
  return packed;
}

/// Rows of a GEMM that computes more than it is asked for.
constexpr std::int64_t kSpareRows = 64;

}  // namespace

RankLayer::RankLayer(const MpiLayer& layer, int rank, int ranks)
    : layer_(layer), rank_(rank), ranks_(ranks), local_(layer.experts / ranks) {
  const auto h = static_cast<std::size_t>(layer_.hidden);
  const auto tokens = static_cast<std::size_t>(layer_.tokens);
  const auto k = static_cast<std::size_t>(layer_.top_k);
  tokens_ = noise((tokens + kSpareRows) * h, layer_.seed * 1'000'003 + static_cast<std::uint64_t>(rank));
  scores_.resize((tokens + kSpareRows) * static_cast<std::size_t>(layer_.experts));
  const std::int64_t up_columns = (layer_.gated ? 2 : 1) * layer_.width;
  gate_gemm_ = make_gemm(usual_backend(), DType::fp32, layer_.experts, layer_.hidden, 1);
  up_ = make_gemm(usual_backend(), DType::fp32, up_columns, layer_.hidden, 1);
  down_ = make_gemm(usual_backend(), DType::fp32, layer_.hidden, layer_.width, 1);
  packed_gate_ = pack(*gate_gemm_, noise(h * static_cast<std::size_t>(layer_.experts), 11));
  for (int e = 0; e < local_; ++e) {
    packed_up_.push_back(pack(*up_, weights_of(rank * local_ + e, true)));
    packed_down_.push_back(pack(*down_, weights_of(rank * local_ + e, false)));
  }
  // Everybody draws the routing of all, and so knows what will come.
  const Assignment all = draw_mpi_routing(layer_, ranks);
  send_counts_.assign(static_cast<std::size_t>(ranks), 0);
  receive_counts_.assign(static_cast<std::size_t>(ranks), 0);
  arriving_.assign(static_cast<std::size_t>(ranks), std::vector<std::int64_t>(static_cast<std::size_t>(local_), 0));
  rows_.assign(static_cast<std::size_t>(local_), 0);
  for (int sender = 0; sender < ranks; ++sender) {
    for (std::size_t t = 0; t < tokens; ++t) {
      for (const std::int32_t expert : all.of(static_cast<std::size_t>(sender) * tokens + t)) {
        if (sender == rank) {
          choice_.push_back(expert);
          send_counts_[static_cast<std::size_t>(expert / local_)] += h;
        }
        if (expert / local_ != rank) continue;
        receive_counts_[static_cast<std::size_t>(sender)] += h;
        ++arriving_[static_cast<std::size_t>(sender)][static_cast<std::size_t>(expert % local_)];
        ++rows_[static_cast<std::size_t>(expert % local_)];
      }
    }
  }
  const auto rows = static_cast<std::size_t>(std::accumulate(rows_.begin(), rows_.end(), std::int64_t{0}));
  position_.resize(tokens * k);
  offsets_.resize(static_cast<std::size_t>(layer_.experts) + 1);
  sent_.resize(tokens * k * h);
  returned_.resize(tokens * k * h);
  received_.resize(rows * h);
  computed_.resize(rows * h);
  result_.resize(tokens * h);
}

std::vector<float> RankLayer::weights_of(int expert, bool up) const {
  const std::int64_t columns = up ? (layer_.gated ? 2 : 1) * layer_.width : layer_.hidden;
  const std::int64_t depth = up ? layer_.hidden : layer_.width;
  return noise(static_cast<std::size_t>(columns * depth),
               static_cast<std::uint64_t>(expert) * 2 + (up ? 1 : 0) + 1'000'000);
}

double RankLayer::route() {
  const auto start = Clock::now();
  gate_gemm_->run(layer_.tokens, tokens_.data(), packed_gate_.data(), scores_.data());
  sort_by_expert(choice_, layer_.experts, position_, offsets_);
  permute_rows(tokens_.data(), sent_.data(), position_, layer_.tokens, layer_.top_k,
               static_cast<std::size_t>(layer_.hidden) * sizeof(float), 1);
  return since(start);
}

double RankLayer::dispatch() {
  const auto start = Clock::now();
  exchange(sent_.data(), send_counts_, received_.data(), receive_counts_);
  return since(start);
}

void RankLayer::run_experts(const std::vector<std::int64_t>& rows, const float* input, float* output) {
  const auto h = static_cast<std::size_t>(layer_.hidden);
  for (std::size_t e = 0; e < rows.size(); ++e) {
    if (rows[e] == 0) continue;
    const auto m = static_cast<std::size_t>(rows[e]);
    const std::size_t padded =
        static_cast<std::size_t>(std::max(up_->padded_rows(rows[e]), down_->padded_rows(rows[e])));
    const std::size_t up_columns = static_cast<std::size_t>((layer_.gated ? 2 : 1) * layer_.width);
    hidden_rows_.resize(std::max(hidden_rows_.size(), padded * std::max(h, up_columns)));
    up_rows_.resize(std::max(up_rows_.size(), padded * std::max(h, static_cast<std::size_t>(layer_.width))));
    std::memcpy(up_rows_.data(), input, m * h * sizeof(float));
    up_->run(rows[e], up_rows_.data(), packed_up_[e].data(), hidden_rows_.data());
    activate(hidden_rows_.data(), up_rows_.data(), rows[e], layer_.width, layer_.gated, Activation::silu, DType::fp32,
             1);
    down_->run(rows[e], up_rows_.data(), packed_down_[e].data(), hidden_rows_.data());
    std::memcpy(output, hidden_rows_.data(), m * h * sizeof(float));
    input += m * h;
    output += m * h;
  }
}

double RankLayer::experts() {
  const auto start = Clock::now();
  // Rows lie sender by sender, of each in the order of experts: gather them expert by expert, and back.
  const auto h = static_cast<std::size_t>(layer_.hidden);
  std::vector<std::size_t> first(static_cast<std::size_t>(local_) + 1, 0);
  for (std::size_t e = 0; e < rows_.size(); ++e) first[e + 1] = first[e] + static_cast<std::size_t>(rows_[e]);
  const auto each = [&](const auto& move) {
    std::vector<std::size_t> next(first.begin(), first.end() - 1);
    std::size_t at = 0;
    for (const auto& of_sender : arriving_) {
      for (std::size_t e = 0; e < of_sender.size(); ++e) {
        const auto count = static_cast<std::size_t>(of_sender[e]);
        move(at, next[e], count);
        at += count;
        next[e] += count;
      }
    }
  };
  each([&](std::size_t from, std::size_t to, std::size_t count) {
    std::memcpy(computed_.data() + to * h, received_.data() + from * h, count * h * sizeof(float));
  });
  run_experts(rows_, computed_.data(), computed_.data());
  std::vector<float>& back = received_;
  each([&](std::size_t to, std::size_t from, std::size_t count) {
    std::memcpy(back.data() + to * h, computed_.data() + from * h, count * h * sizeof(float));
  });
  return since(start);
}

double RankLayer::experts_of(std::int64_t rows, std::int64_t touched) {
  std::vector<std::int64_t> of(static_cast<std::size_t>(local_), 0);
  for (std::int64_t e = 0; e < touched; ++e)
    of[static_cast<std::size_t>(e)] = rows * (e + 1) / touched - rows * e / touched;
  const auto h = static_cast<std::size_t>(layer_.hidden);
  received_.resize(std::max(received_.size(), static_cast<std::size_t>(rows) * h), 0.25F);
  computed_.resize(received_.size());
  const auto start = Clock::now();
  std::memcpy(computed_.data(), received_.data(), static_cast<std::size_t>(rows) * h * sizeof(float));
  run_experts(of, computed_.data(), computed_.data());
  std::memcpy(received_.data(), computed_.data(), static_cast<std::size_t>(rows) * h * sizeof(float));
  return since(start);
}

double RankLayer::combine() {
  const auto start = Clock::now();
  exchange(received_.data(), receive_counts_, returned_.data(), send_counts_);
  return since(start);
}

double RankLayer::finish() {
  const auto start = Clock::now();
  const std::vector<float> weights(choice_.size(), 1.0F / static_cast<float>(layer_.top_k));
  unpermute_rows(returned_.data(), result_.data(), position_, weights, layer_.tokens, layer_.top_k, layer_.hidden, 1);
  return since(start);
}

double RankLayer::error() const {
  const auto h = static_cast<std::size_t>(layer_.hidden);
  const auto w = static_cast<std::size_t>(layer_.width);
  const auto k = static_cast<std::size_t>(layer_.top_k);
  const std::size_t up_columns = layer_.gated ? 2 * w : w;
  double worst = 0;
  double largest = 1e-30;
  for (std::size_t t = 0; t < std::min<std::size_t>(2, static_cast<std::size_t>(layer_.tokens)); ++t) {
    std::vector<double> expected(h, 0);
    for (std::size_t j = 0; j < k; ++j) {
      const int expert = choice_[t * k + j];
      const std::vector<float> up = weights_of(expert, true);
      const std::vector<float> down = weights_of(expert, false);
      for (std::size_t c = 0; c < w; ++c) {
        double gate = 0;
        double linear = 1;
        for (std::size_t i = 0; i < h; ++i) gate += static_cast<double>(tokens_[t * h + i] * up[i * up_columns + c]);
        if (layer_.gated) {
          linear = 0;
          for (std::size_t i = 0; i < h; ++i) {
            linear += static_cast<double>(tokens_[t * h + i] * up[i * up_columns + w + c]);
          }
        }
        const double active = gate / (1 + std::exp(-gate)) * linear / static_cast<double>(k);
        for (std::size_t i = 0; i < h; ++i) expected[i] += active * static_cast<double>(down[c * h + i]);
      }
    }
    for (std::size_t i = 0; i < h; ++i) {
      worst = std::max(worst, std::abs(expected[i] - static_cast<double>(result_[t * h + i])));
      largest = std::max(largest, std::abs(expected[i]));
    }
  }
  return worst / largest;
}

}  // namespace moecast
