#include "models/routing/capacity.h"

#include <algorithm>
#include <cmath>

#include "models/core/count.h"

namespace moecast {
namespace {

/// Rows that experts with room take of `spare`; the rest is returned.
double raise(std::vector<ExpertRows>& kinds, double slots, double spare) {
  while (spare > 1e-9) {
    double open_rows = 0;
    for (const ExpertRows& kind : kinds) {
      for (const RowGroup& group : kind.groups) {
        if (group.rows < slots) open_rows += group.rows * group.experts;
      }
    }
    if (open_rows <= 0) return spare;
    const double grown = 1 + spare / open_rows;
    bool filled = false;
    for (ExpertRows& kind : kinds) {
      for (RowGroup& group : kind.groups) {
        if (group.rows >= slots) continue;
        const double rows = std::min(slots, group.rows * grown);
        spare -= (rows - group.rows) * group.experts;
        filled = filled || rows >= slots;
        group.rows = rows;
      }
    }
    if (!filled) return 0;
  }
  return 0;
}

/// Experts that had no row take what is left, all alike.
void wake(std::vector<ExpertRows>& kinds, double slots, double spare) {
  std::vector<double> idle;
  double all = 0;
  for (const ExpertRows& kind : kinds) {
    double touched = 0;
    for (const RowGroup& group : kind.groups) touched += group.experts;
    idle.push_back(std::max(0.0, kind.experts - touched));
    all += idle.back();
  }
  if (all < 1e-9 || spare < 1e-9) return;
  // Whole rows: no expert computes less than one.
  const double rows = std::min(slots, std::max(1.0, spare / all));
  const double share = std::min(1.0, spare / (rows * all));
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    if (idle[i] > 0) kinds[i].groups.push_back({rows, idle[i] * share});
  }
}

}  // namespace

std::optional<std::int64_t> capacity_slots(const CapacitySpec& capacity, std::int64_t tokens, int top_k,
                                           std::int64_t experts) {
  if (!capacity.limited()) return std::nullopt;
  if (capacity.absolute) return std::min(tokens, std::max(*capacity.absolute, capacity.minimum));
  const double factor = capacity.eval_factor ? *capacity.eval_factor : *capacity.train_factor;
  const double exact = factor * value(tokens) * (capacity.factor_of_top_k ? top_k : 1) / value(experts);
  // 0.5 * 2 * 8 / 8 must be 1 slot, whatever the last bit of the product says.
  const double slots = capacity.rounding == CapacityRounding::ceil ? std::ceil(exact - 1e-9) : std::floor(exact + 1e-9);
  const double most = value(tokens);
  return std::min(tokens, std::max(static_cast<std::int64_t>(std::min(slots, most)), capacity.minimum));
}

void limit_rows(std::vector<ExpertRows>& kinds, double slots, bool next_best) {
  double spare = 0;
  for (ExpertRows& kind : kinds) {
    for (RowGroup& group : kind.groups) {
      spare += std::max(0.0, group.rows - slots) * group.experts;
      group.rows = std::min(group.rows, slots);
    }
  }
  if (next_best) wake(kinds, slots, raise(kinds, slots, spare));
  for (ExpertRows& kind : kinds) {
    std::erase_if(kind.groups, [](const RowGroup& group) { return group.rows <= 0; });
  }
}

}  // namespace moecast
