#include "sim/fit/kriging_table.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>

namespace moecast {
namespace {

/// Steps along a feature shrink until lines between nodes depart from the residual by at most this (a ratio of times),
/// at nine of ten measured points.
constexpr double kTolerance = 0.001;
constexpr double kMostStep = 1.0;
constexpr double kLeastStep = 0.2;
constexpr double kShrink = 0.8;
constexpr Eigen::Index kProbes = 64;  ///< measured points that are tried
/// Grids above this many nodes are made coarser.
constexpr double kMostNodes = 1 << 27;

/// The largest step along one feature that keeps the tolerance.
double step_of(const Kriging& kriging, Eigen::Index feature) {
  const Eigen::MatrixXd& points = kriging.features();
  const Eigen::Index stride = std::max<Eigen::Index>(1, points.rows() / kProbes);
  for (double step = kMostStep; step > kLeastStep; step *= kShrink) {
    std::vector<double> departures;
    for (Eigen::Index i = 0; i < points.rows(); i += stride) {
      Eigen::VectorXd x = points.row(i).transpose();
      x(feature) += 0.25 * step;  // a measured point is where the residual bends most; beside it is fairer
      const double middle = kriging.mean(x);
      x(feature) -= 0.5 * step;
      const double before = kriging.mean(x);
      x(feature) += step;
      departures.push_back(std::abs(0.5 * (before + kriging.mean(x)) - middle));
    }
    const auto at = departures.begin() + static_cast<std::ptrdiff_t>(departures.size() * 9 / 10);
    std::nth_element(departures.begin(), at, departures.end());
    if (*at <= kTolerance) return step;
  }
  return kLeastStep;
}

/// A node in 32 bits: the mean in steps of 2^-14 (up to +-2) and the nearness in steps of 2^-15; never 0.
constexpr float kMeanSteps = 16384;
constexpr float kNearSteps = 32768;

std::uint32_t pack(const Kriging::Evaluation& value) {
  const double mean = std::clamp(value.mean * kMeanSteps, -32767.0, 32767.0);
  const double near = std::clamp(value.nearness * kNearSteps, 0.0, 65535.0);
  return static_cast<std::uint32_t>(std::lround(mean) + 32768) << 16 | static_cast<std::uint32_t>(std::lround(near));
}

float mean_of(std::uint32_t packed) { return (static_cast<float>(packed >> 16) - 32768) * (1 / kMeanSteps); }
float nearness_of(std::uint32_t packed) { return static_cast<float>(packed & 0xffffU) * (1 / kNearSteps); }

}  // namespace

/// Where the simplices of kLanes queries start, and the way to their other corners.
struct KrigingTable::Corners {
  std::array<std::uint32_t, kLanes> base;
  std::array<std::uint32_t, kLanes> outside;
  /// Position in the cell (24 bits) over the stride of its feature, largest position first.
  std::array<std::array<std::uint64_t, kLanes>, kMostFeatures> keys;
};

void KrigingTable::Free::operator()(std::uint32_t* memory) const { std::free(memory); }

KrigingTable::KrigingTable(const Kriging& kriging, const std::vector<Axis>& axes)
    : kriging_(kriging),
      lanes_(kriging),
      features_(static_cast<int>(std::min<std::size_t>(axes.size(), kMostFeatures))) {
  std::vector<double> steps;
  for (int i = 0; i < features_; ++i) {
    const bool fixed = kriging.empty() || axes[static_cast<std::size_t>(i)].steps > 0;
    steps.push_back(fixed ? kMostStep : step_of(kriging, i));
  }
  for (double coarser = 1;; coarser *= 1.25) {
    double total = 1;
    for (int i = 0; i < features_; ++i) {
      const Axis& axis = axes[static_cast<std::size_t>(i)];
      Grid& grid = grids_[static_cast<std::size_t>(i)];
      const double range = static_cast<double>(axis.high) - static_cast<double>(axis.low);
      const double wanted = steps[static_cast<std::size_t>(i)] * coarser;
      grid.cells = axis.steps > 0 ? axis.steps : std::max(1, static_cast<int>(std::ceil(range / wanted)));
      grid.low = axis.low;
      grid.last = axis.high;
      grid.step = static_cast<float>(range / grid.cells);
      grid.per_step = static_cast<float>(grid.cells / range);
      grid.stride = static_cast<std::uint32_t>(total);
      total *= grid.cells + 1;
    }
    size_ = static_cast<std::size_t>(total);
    if (total <= kMostNodes) break;
  }
  values_.reset(static_cast<std::uint32_t*>(std::calloc(size_, sizeof(std::uint32_t))));
  if (!values_) throw std::bad_alloc();
}

std::size_t KrigingTable::filled() const {
  std::size_t count = 0;
  for (std::size_t i = 0; i < size_; ++i) count += std::atomic_ref(values_[i]).load(std::memory_order_relaxed) != 0;
  return count;
}

std::uint32_t KrigingTable::compute(std::uint32_t index) const noexcept {
  std::array<float, kMostFeatures> x{};
  for (int i = 0; i < features_; ++i) {
    const Grid& grid = grids_[static_cast<std::size_t>(i)];
    const std::uint32_t at = index / grid.stride % static_cast<std::uint32_t>(grid.cells + 1);
    x[static_cast<std::size_t>(i)] = grid.low + grid.step * static_cast<float>(at);
  }
  const std::uint32_t value = pack(lanes_.evaluate(x));
  // Two threads may both come here: they store the same.
  std::atomic_ref(values_[index]).store(value, std::memory_order_relaxed);
  return value;
}

std::uint32_t KrigingTable::node(std::uint32_t index) const noexcept {
  const std::uint32_t value = std::atomic_ref(values_[index]).load(std::memory_order_relaxed);
  return value != 0 ? value : compute(index);
}

template <int kUsed>
KrigingTable::Corners KrigingTable::corners(const Lanes& features) const noexcept {
  constexpr float kUnit = 1 << 24;
  Corners corners;
  corners.base.fill(0);
  corners.outside.fill(0);
  for (int i = 0; i < features_; ++i) {
    const Grid& grid = grids_[static_cast<std::size_t>(i)];
    const auto& x = features[static_cast<std::size_t>(i)];
    auto& key = corners.keys[static_cast<std::size_t>(i)];
    const auto last = static_cast<float>(grid.cells - 1);
#pragma GCC unroll 1  // unrolled loops are not vectorised
    for (int lane = 0; lane < kUsed; ++lane) {
      float at = (x[lane] - grid.low) * grid.per_step;
      corners.outside[lane] |=
          static_cast<std::uint32_t>(x[lane] < grid.low) | static_cast<std::uint32_t>(x[lane] > grid.last);
      at = at > 0 ? at : 0;
      at = at < last + 1 ? at : last + 1;
      float cell = static_cast<float>(static_cast<std::int32_t>(at));
      cell = cell < last ? cell : last;
      corners.base[lane] += static_cast<std::uint32_t>(static_cast<std::int32_t>(cell)) * grid.stride;
      const auto position = static_cast<std::uint32_t>(static_cast<std::int32_t>((at - cell) * kUnit));
      key[lane] = std::uint64_t{position} << 32 | grid.stride;
    }
  }
  // Insertion by compare and exchange, all lanes alike.
  for (int i = 1; i < features_; ++i) {
    for (int j = i; j > 0; --j) {
      auto& upper = corners.keys[static_cast<std::size_t>(j - 1)];
      auto& lower = corners.keys[static_cast<std::size_t>(j)];
#pragma GCC unroll 1  // unrolled loops are not vectorised
      for (int lane = 0; lane < kUsed; ++lane) {
        const std::uint64_t a = upper[lane];
        const std::uint64_t b = lower[lane];
        upper[lane] = a > b ? a : b;
        lower[lane] = a > b ? b : a;
      }
    }
  }
  return corners;
}

float KrigingTable::interpolate(const Corners& c, int lane, float& nearness) const noexcept {
  constexpr float kPerUnit = 1.0F / (1 << 24);
  std::uint32_t index = c.base[lane];
  float before = 1;
  float mean = 0;
  float near = 0;
  for (int i = 0; i <= features_; ++i) {
    const std::uint64_t key = i < features_ ? c.keys[static_cast<std::size_t>(i)][lane] : 0;
    const float position = static_cast<float>(static_cast<std::int32_t>(key >> 32)) * kPerUnit;
    const float weight = before - position;
    if (weight > 0) {  // a feature that sits on a node leaves a corner out
      const std::uint32_t value = node(index);
      mean += weight * mean_of(value);
      near += weight * nearness_of(value);
    }
    before = position;
    index += static_cast<std::uint32_t>(key);
  }
  nearness = near;
  return mean;
}

/// The corners of all lanes lie far apart in memory: asked for together, they come together.
void KrigingTable::prefetch(const Corners& c, int count) const noexcept {
  for (int lane = 0; lane < count; ++lane) {
    if (c.outside[lane] != 0) continue;
    std::uint32_t index = c.base[lane];
    for (int i = 0; i <= features_; ++i) {
      __builtin_prefetch(&values_[index]);
      if (i < features_) index += static_cast<std::uint32_t>(c.keys[static_cast<std::size_t>(i)][lane]);
    }
  }
}

void KrigingTable::evaluate(const Lanes& features, int count, Answer& answer) const noexcept {
  if (kriging_.empty()) {
    answer.mean.fill(0);
    answer.nearness.fill(0);
    return;
  }
  const bool few = count <= kLanes / 2;
  const Corners c = few ? corners<kLanes / 2>(features) : corners<kLanes>(features);
  if (!few) prefetch(c, count);
  for (int lane = 0; lane < count; ++lane) {
    if (c.outside[lane] == 0) {
      answer.mean[lane] = interpolate(c, lane, answer.nearness[lane]);
      continue;
    }
    std::array<double, kMostFeatures> x{};
    for (int i = 0; i < features_; ++i) x[static_cast<std::size_t>(i)] = features[static_cast<std::size_t>(i)][lane];
    const auto exact = kriging_.evaluate(Eigen::Map<const Eigen::VectorXd>(x.data(), features_));
    answer.mean[lane] = static_cast<float>(exact.mean);
    answer.nearness[lane] = static_cast<float>(exact.nearness);
  }
}

}  // namespace moecast
