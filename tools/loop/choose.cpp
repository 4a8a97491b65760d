#include "tools/loop/choose.h"

#include <algorithm>
#include <cmath>

namespace moecast {
namespace {

bool same_key(const KernelPoint& a, const KernelPoint& b) {
  return a.kind == b.kind && a.backend == b.backend && a.dtype == b.dtype && a.threads == b.threads;
}

double octaves(double a, double b) { return std::log2((a + 1) / (b + 1)); }

/// Share of its uncertainty that a candidate keeps beside a known point: none at the point, nearly all 3 octaves away.
double remaining_share(double distance) { return 1 - std::exp(-0.5 * distance * distance); }

}  // namespace

double octave_distance(const KernelPoint& a, const KernelPoint& b) {
  double sum = 0;
  for (const ShapeColumn& column : shape_columns(a.kind)) {
    const double d = octaves(static_cast<double>(a.shape.*column.field), static_cast<double>(b.shape.*column.field));
    sum += d * d;
  }
  // A footprint moves a point less than a shape does: six octaves of it span cache to memory.
  const double footprint = octaves(a.footprint.value(), b.footprint.value()) / 2;
  const double input = octaves(a.input_footprint.value(), b.input_footprint.value()) / 8;
  const double output = octaves(a.output_footprint.value(), b.output_footprint.value()) / 8;
  return std::sqrt(sum + footprint * footprint + input * input + output * output);
}

std::vector<std::size_t> choose_uncertain(const CostModel& model, const std::vector<KernelPoint>& candidates,
                                          const std::vector<KernelPoint>& measured, std::size_t count) {
  std::vector<double> score(candidates.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const KernelPoint& point = candidates[i];
    const bool known = model.knows(point.kind, point.backend, point.dtype, point.threads);
    score[i] = known ? model.uncertainty(point) : 1;
    if (std::find(measured.begin(), measured.end(), point) != measured.end()) score[i] = 0;
  }
  std::vector<std::size_t> chosen;
  while (chosen.size() < count) {
    const auto best = std::max_element(score.begin(), score.end());
    if (best == score.end() || *best <= 0) break;
    const auto index = static_cast<std::size_t>(best - score.begin());
    chosen.push_back(index);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (same_key(candidates[i], candidates[index])) {
        score[i] *= remaining_share(octave_distance(candidates[i], candidates[index]));
      }
    }
    score[index] = 0;
  }
  return chosen;
}

}  // namespace moecast
