#include "profiler/mpi/program/layer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>

#include "profiler/cpu/stages.h"
#include "profiler/mpi/program/transport.h"
#include "profiler/reference/planted.h"

namespace moecast {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr std::uint64_t kGateSeed = 11;

}  // namespace

RankLayer::RankLayer(const MpiLayer& layer, int rank, int ranks)
    : layer_(layer),
      rank_(rank),
      ranks_(ranks),
      local_(layer.experts / (ranks / layer.tp)),
      width_(layer.width / layer.tp) {
  const auto h = static_cast<std::size_t>(layer_.hidden);
  const auto tokens = static_cast<std::size_t>(layer_.tokens);
  const auto k = static_cast<std::size_t>(layer_.top_k);
  const auto spare = static_cast<std::size_t>(kSpareMpiRows);
  tokens_ = mpi_noise((tokens + spare) * h, layer_.seed * 1'000'003 + static_cast<std::uint64_t>(rank));
  input_ = tokens_;
  scores_.resize((tokens + spare) * static_cast<std::size_t>(layer_.experts));
  const std::int64_t up_columns = (layer_.gated ? 2 : 1) * width_;
  gate_gemm_ = make_gemm(usual_mpi_backend(), DType::fp32, layer_.experts, layer_.hidden, 1);
  up_ = make_gemm(usual_mpi_backend(), DType::fp32, up_columns, layer_.hidden, 1);
  down_ = make_gemm(usual_mpi_backend(), DType::fp32, layer_.hidden, width_, 1);
  gate_ = mpi_noise(h * static_cast<std::size_t>(layer_.experts), kGateSeed);
  packed_gate_ = packed(*gate_gemm_, gate_);
  if (layer_.heads > 0) attention_ = std::make_unique<RankAttention>(layer_);
  const int group = rank / layer_.tp;
  for (int e = 0; e < local_; ++e) {
    packed_up_.push_back(packed(*up_, share_of(group * local_ + e, true)));
    packed_down_.push_back(packed(*down_, share_of(group * local_ + e, false)));
  }
  const Assignment all = draw_mpi_routing(layer_, ranks);
  std::vector<std::int32_t> drawn;
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto of = all.of(static_cast<std::size_t>(rank) * tokens + t);
    drawn.insert(drawn.end(), of.begin(), of.end());
  }
  shift_ = shift_for(drawn, layer_.tokens, layer_.experts);
  send_counts_.assign(static_cast<std::size_t>(ranks), 0);
  receive_counts_.assign(static_cast<std::size_t>(ranks), 0);
  rows_.assign(static_cast<std::size_t>(local_), 0);
  told_.resize(static_cast<std::size_t>(layer_.experts * layer_.tp));
  heard_.resize(static_cast<std::size_t>(local_ * ranks));
  choice_.resize(tokens * k);
  weights_.resize(tokens * k);
  position_.resize(tokens * k);
  order_.resize(static_cast<std::size_t>(layer_.experts));
  offsets_.resize(static_cast<std::size_t>(layer_.experts) + 1);
  sorted_.resize(tokens * k * h);
  sent_.resize(layer_.tp > 1 ? sorted_.size() * static_cast<std::size_t>(layer_.tp) : 0);
  returned_.resize(sorted_.size() * static_cast<std::size_t>(layer_.tp));
  result_.resize(tokens * h);
}

std::vector<float> RankLayer::weights_of(int expert, bool up) const {
  const std::int64_t columns = up ? (layer_.gated ? 2 : 1) * layer_.width : layer_.hidden;
  const std::int64_t depth = up ? layer_.hidden : layer_.width;
  return mpi_noise(static_cast<std::size_t>(columns * depth),
                   static_cast<std::uint64_t>(expert) * 2 + (up ? 1 : 0) + 1'000'000);
}

std::vector<float> RankLayer::share_of(int expert, bool up) const {
  std::vector<float> whole = weights_of(expert, up);
  if (layer_.tp == 1) return whole;
  const auto share = static_cast<std::size_t>(width_);
  const std::size_t first = static_cast<std::size_t>(rank_ % layer_.tp) * share;
  if (!up) {  // a block of rows
    const auto h = static_cast<std::size_t>(layer_.hidden);
    return {whole.begin() + static_cast<std::ptrdiff_t>(first * h),
            whole.begin() + static_cast<std::ptrdiff_t>((first + share) * h)};
  }
  const auto width = static_cast<std::size_t>(layer_.width);
  std::vector<float> columns;  // the same ones of gate and up
  for (std::size_t at = 0; at < whole.size(); at += width) {
    const auto begin = whole.begin() + static_cast<std::ptrdiff_t>(at + first);
    columns.insert(columns.end(), begin, begin + static_cast<std::ptrdiff_t>(share));
  }
  return columns;
}

double RankLayer::attend() {
  if (!attention_) return 0;
  const auto start = Clock::now();
  std::ranges::copy(tokens_, input_.begin());
  attention_->run(input_);
  return since(start);
}

/// The k largest scores of each token, and their softmax.
void RankLayer::choose() {
  const auto experts = static_cast<std::size_t>(layer_.experts);
  const auto k = static_cast<std::size_t>(layer_.top_k);
  for (std::size_t t = 0; t < static_cast<std::size_t>(layer_.tokens); ++t) {
    float* const scores = scores_.data() + t * experts;
    for (std::size_t e = 0; e < experts; ++e) scores[e] += shift_[t * experts + e];
    std::iota(order_.begin(), order_.end(), 0);
    const auto higher = [scores](std::int32_t a, std::int32_t b) { return scores[a] > scores[b]; };
    std::partial_sort(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(k), order_.end(), higher);
    float sum = 0;
    for (std::size_t j = 0; j < k; ++j) {
      choice_[t * k + j] = order_[j];
      sum += weights_[t * k + j] = std::exp(scores[order_[j]] - scores[order_[0]]);
    }
    for (std::size_t j = 0; j < k; ++j) weights_[t * k + j] /= sum;
  }
}

double RankLayer::route() {
  const auto start = Clock::now();
  const auto h = static_cast<std::size_t>(layer_.hidden);
  gate_gemm_->run(layer_.tokens, input_.data(), packed_gate_.data(), scores_.data());
  choose();
  sort_by_expert(choice_, layer_.experts, position_, offsets_);
  permute_rows(input_.data(), sorted_.data(), position_, layer_.tokens, layer_.top_k, h * sizeof(float), 1);
  // A copy for each rank that shares a group's experts.
  const auto tp = static_cast<std::size_t>(layer_.tp);
  const auto local = static_cast<std::size_t>(local_);
  float* out = sent_.data();
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(ranks_); ++rank) {
    const std::size_t group = rank / tp;
    const auto first = static_cast<std::size_t>(offsets_[group * local]);
    const std::size_t count = static_cast<std::size_t>(offsets_[(group + 1) * local]) - first;
    send_counts_[rank] = count * h;
    for (std::size_t e = 0; e < local; ++e) {
      told_[rank * local + e] = static_cast<float>(offsets_[group * local + e + 1] - offsets_[group * local + e]);
    }
    if (tp == 1) continue;
    std::memcpy(out, sorted_.data() + first * h, count * h * sizeof(float));
    out += count * h;
  }
  return since(start);
}

double RankLayer::dispatch() {
  const auto start = Clock::now();
  const auto local = static_cast<std::size_t>(local_);
  const std::vector<std::size_t> each(static_cast<std::size_t>(ranks_), local);
  exchange(told_.data(), each, heard_.data(), each);
  std::ranges::fill(rows_, 0);
  std::size_t all = 0;
  for (std::size_t sender = 0; sender < static_cast<std::size_t>(ranks_); ++sender) {
    std::size_t rows = 0;
    for (std::size_t e = 0; e < local; ++e) {
      const auto count = static_cast<std::int64_t>(heard_[sender * local + e]);
      rows_[e] += count;
      rows += static_cast<std::size_t>(count);
    }
    receive_counts_[sender] = rows * static_cast<std::size_t>(layer_.hidden);
    all += receive_counts_[sender];
  }
  received_.resize(std::max(received_.size(), all));
  computed_.resize(received_.size());
  exchange(layer_.tp == 1 ? sorted_.data() : sent_.data(), send_counts_, received_.data(), receive_counts_);
  return since(start);
}

void RankLayer::run_experts(const std::vector<std::int64_t>& rows, const float* input, float* output) {
  const auto h = static_cast<std::size_t>(layer_.hidden);
  for (std::size_t e = 0; e < rows.size(); ++e) {
    if (rows[e] == 0) continue;
    const auto m = static_cast<std::size_t>(rows[e]);
    const std::size_t padded =
        static_cast<std::size_t>(std::max(up_->padded_rows(rows[e]), down_->padded_rows(rows[e])));
    const std::size_t up_columns = static_cast<std::size_t>((layer_.gated ? 2 : 1) * width_);
    hidden_rows_.resize(std::max(hidden_rows_.size(), padded * std::max(h, up_columns)));
    up_rows_.resize(std::max(up_rows_.size(), padded * std::max(h, static_cast<std::size_t>(width_))));
    std::memcpy(up_rows_.data(), input, m * h * sizeof(float));
    up_->run(rows[e], up_rows_.data(), packed_up_[e].data(), hidden_rows_.data());
    activate(hidden_rows_.data(), up_rows_.data(), rows[e], width_, layer_.gated, Activation::silu, DType::fp32, 1);
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
    for (std::size_t i = 0; i < heard_.size(); ++i) {
      const std::size_t e = i % static_cast<std::size_t>(local_);
      const auto count = static_cast<std::size_t>(heard_[i]);
      move(at, next[e], count);
      at += count;
      next[e] += count;
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
  const auto tp = static_cast<std::size_t>(layer_.tp);
  if (tp > 1) {  // the shares of a group come rank by rank
    const float* in = returned_.data();
    float* out = sorted_.data();
    for (std::size_t rank = 0; rank < static_cast<std::size_t>(ranks_); ++rank) {
      const std::size_t count = send_counts_[rank];
      if (rank % tp == 0) {
        std::memcpy(out, in, count * sizeof(float));
      } else {
        for (std::size_t i = 0; i < count; ++i) out[i] += in[i];
      }
      in += count;
      if (rank % tp + 1 == tp) out += count;
    }
  }
  const float* rows = tp > 1 ? sorted_.data() : returned_.data();
  unpermute_rows(rows, result_.data(), position_, weights_, layer_.tokens, layer_.top_k, layer_.hidden, 1);
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
    std::vector<double> token(tokens_.begin() + static_cast<std::ptrdiff_t>(t * h),
                              tokens_.begin() + static_cast<std::ptrdiff_t>((t + 1) * h));
    if (attention_) token = attention_->expected(tokens_, static_cast<std::int64_t>(t));
    double all = 0;
    std::vector<double> chance(k, 0);
    for (std::size_t j = 0; j < k; ++j) {
      double score = 0;
      const auto experts = static_cast<std::size_t>(layer_.experts);
      const auto expert = static_cast<std::size_t>(choice_[t * k + j]);
      for (std::size_t i = 0; i < h; ++i) score += token[i] * static_cast<double>(gate_[i * experts + expert]);
      all += chance[j] = std::exp(score);
    }
    for (std::size_t j = 0; j < k; ++j) {
      const int expert = choice_[t * k + j];
      const std::vector<float> up = weights_of(expert, true);
      const std::vector<float> down = weights_of(expert, false);
      for (std::size_t c = 0; c < w; ++c) {
        double gate = 0;
        double linear = 1;
        for (std::size_t i = 0; i < h; ++i) gate += token[i] * static_cast<double>(up[i * up_columns + c]);
        if (layer_.gated) {
          linear = 0;
          for (std::size_t i = 0; i < h; ++i) {
            linear += token[i] * static_cast<double>(up[i * up_columns + w + c]);
          }
        }
        const double active = gate / (1 + std::exp(-gate)) * linear * chance[j] / all;
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
