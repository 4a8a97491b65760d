#include "profiler/mpi/program/attention.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "models/routing/random.h"
#include "profiler/cpu/stages.h"

namespace moecast {
namespace {

constexpr std::uint64_t kQkvSeed = 101;
constexpr std::uint64_t kOutSeed = 103;
/// What attention adds is small beside the tokens, as in trained models: gate scores stay in their range.
constexpr float kBranch = 0.05F;

}  // namespace

std::vector<float> mpi_noise(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.uniform()) - 0.5F;
  return values;
}

std::vector<char> packed(const Gemm& gemm, const std::vector<float>& weights) {
  std::vector<char> bytes(gemm.packed_bytes());
  gemm.pack(weights.data(), bytes.data());
  return bytes;
}

std::string usual_mpi_backend() { return gemm_supports("onednn", DType::fp32) ? "onednn" : "eigen"; }

RankAttention::RankAttention(const MpiLayer& layer) : layer_(layer) {
  const auto h = static_cast<std::size_t>(layer_.hidden);
  const std::size_t rows = static_cast<std::size_t>(layer_.tokens + kSpareMpiRows);
  in_ = mpi_noise(3 * h * h, kQkvSeed);
  out_ = mpi_noise(h * h, kOutSeed);
  for (float& weight : out_) weight *= kBranch;
  qkv_gemm_ = make_gemm(usual_mpi_backend(), DType::fp32, 3 * layer_.hidden, layer_.hidden, 1);
  out_gemm_ = make_gemm(usual_mpi_backend(), DType::fp32, layer_.hidden, layer_.hidden, 1);
  packed_in_ = packed(*qkv_gemm_, in_);
  packed_out_ = packed(*out_gemm_, out_);
  qkv_.resize(rows * 3 * h);
  q_.resize(rows * h);
  k_.resize(rows * h);
  v_.resize(rows * h);
  attended_.resize(rows * h);
  added_.resize(rows * h);
}

double RankAttention::run(std::vector<float>& tokens) {
  const auto start = std::chrono::steady_clock::now();
  const auto h = static_cast<std::size_t>(layer_.hidden);
  qkv_gemm_->run(layer_.tokens, tokens.data(), packed_in_.data(), qkv_.data());
  for (std::size_t t = 0; t < static_cast<std::size_t>(layer_.tokens); ++t) {
    float* const parts[] = {q_.data(), k_.data(), v_.data()};
    for (std::size_t part = 0; part < 3; ++part) {
      std::memcpy(parts[part] + t * h, qkv_.data() + (3 * t + part) * h, h * sizeof(float));
    }
  }
  attention(q_.data(), k_.data(), v_.data(), attended_.data(), 1, layer_.tokens, layer_.tokens, layer_.tokens,
            layer_.heads, layer_.heads, static_cast<int>(layer_.hidden / layer_.heads), DType::fp32, 1);
  out_gemm_->run(layer_.tokens, attended_.data(), packed_out_.data(), added_.data());
  add_rows(added_.data(), tokens.data(), layer_.tokens, layer_.hidden, 1);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<double> RankAttention::expected(const std::vector<float>& tokens, std::int64_t t) const {
  const auto h = static_cast<std::size_t>(layer_.hidden);
  const std::size_t d = h / static_cast<std::size_t>(layer_.heads);
  const auto project = [&](std::size_t token, std::size_t part) {
    std::vector<double> row(h, 0);
    for (std::size_t i = 0; i < h; ++i) {
      const double x = tokens[token * h + i];
      for (std::size_t c = 0; c < h; ++c) row[c] += x * static_cast<double>(in_[i * 3 * h + part * h + c]);
    }
    return row;
  };
  const auto at = static_cast<std::size_t>(t);
  const std::vector<double> q = project(at, 0);
  std::vector<std::vector<double>> keys, values;
  for (std::size_t s = 0; s <= at; ++s) {
    keys.push_back(project(s, 1));
    values.push_back(project(s, 2));
  }
  std::vector<double> mixed(h, 0);
  for (std::size_t head = 0; head < static_cast<std::size_t>(layer_.heads); ++head) {
    std::vector<double> scores;
    for (const std::vector<double>& key : keys) {
      double dot = 0;
      for (std::size_t c = head * d; c < (head + 1) * d; ++c) dot += q[c] * key[c];
      scores.push_back(dot / std::sqrt(static_cast<double>(d)));
    }
    const double most = std::ranges::max(scores);
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - most);
    for (std::size_t s = 0; s < scores.size(); ++s) {
      for (std::size_t c = head * d; c < (head + 1) * d; ++c) mixed[c] += scores[s] / sum * values[s][c];
    }
  }
  std::vector<double> result(tokens.begin() + static_cast<std::ptrdiff_t>(at * h),
                             tokens.begin() + static_cast<std::ptrdiff_t>((at + 1) * h));
  for (std::size_t i = 0; i < h; ++i) {
    for (std::size_t c = 0; c < h; ++c) result[c] += mixed[i] * static_cast<double>(out_[i * h + c]);
  }
  return result;
}

}  // namespace moecast
