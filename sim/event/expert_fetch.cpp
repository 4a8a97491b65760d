#include "sim/event/expert_fetch.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moecast {

FetchDraw::FetchDraw(const ExpertFetch& fetch, std::span<const Placement> placements)
    : resident_(static_cast<std::size_t>(std::max(0, fetch.resident))),
      moves_(fetch.policy == ResidencyPolicy::lru),
      steps_(placements.size(), 0),
      random_(0) {
  std::vector<double> touched;
  for (std::size_t layer = 0; layer < placements.size(); ++layer) {
    const Placement& placement = placements[layer];
    const std::vector<double>& used = fetch.touched[std::min(layer, fetch.touched.size() - 1)];
    std::vector<Rank>& ranks = layers_.emplace_back(static_cast<std::size_t>(placement.ranks()));
    for (int rank = 0; rank < placement.ranks(); ++rank) {
      Rank& copies = ranks[static_cast<std::size_t>(rank)];
      touched.clear();
      for (const std::int32_t expert : placement.experts_of(rank)) {
        copies.push_back({expert});
        touched.push_back(used[static_cast<std::size_t>(expert)]);
      }
      std::vector<std::size_t> order(copies.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return touched[a] > touched[b]; });
      for (std::size_t place = 0; place < order.size(); ++place) {
        Copy& copy = copies[order[place]];
        copy.touched = touched[order[place]];
        copy.last_used = -1 - static_cast<std::int64_t>(place);
        copy.held = place < resident_;
      }
    }
  }
}

void FetchDraw::draw(int layer, std::span<const double> used, std::vector<int>& fetched) {
  std::vector<Rank>& ranks = layers_[static_cast<std::size_t>(layer)];
  fetched.assign(ranks.size(), 0);
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    if (moves_) draw_held(ranks[rank]);
    for (const Copy& copy : ranks[rank]) {
      if (used[static_cast<std::size_t>(copy.expert)] > 0 && !copy.held) ++fetched[rank];
    }
  }
}

/// Steps since the last use are geometric; experts of one step follow in random order.
void FetchDraw::draw_held(Rank& rank) {
  ages_.clear();
  for (std::size_t i = 0; i < rank.size(); ++i) {
    const double unused = 1 - rank[i].touched;
    const double age = unused <= 0   ? 0
                       : unused >= 1 ? INFINITY
                                     : std::floor(std::log(1 - random_.uniform()) / std::log(unused));
    ages_.emplace_back(age + random_.uniform(), i);
    rank[i].held = false;
  }
  const std::size_t held = std::min(resident_, ages_.size());
  std::ranges::nth_element(ages_, ages_.begin() + static_cast<std::ptrdiff_t>(held));
  for (std::size_t place = 0; place < held; ++place) rank[ages_[place].second].held = true;
}

void FetchDraw::replay(int layer, std::span<const double> used, std::vector<int>& fetched) {
  std::vector<Rank>& ranks = layers_[static_cast<std::size_t>(layer)];
  const std::int64_t step = steps_[static_cast<std::size_t>(layer)]++;
  fetched.assign(ranks.size(), 0);
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    for (Copy& copy : ranks[rank]) {
      if (used[static_cast<std::size_t>(copy.expert)] <= 0) continue;
      if (!copy.held) ++fetched[rank];
      copy.last_used = step;
    }
    if (moves_) keep_latest(ranks[rank]);
  }
}

/// Of those that were used last together, the ones that were there already.
void FetchDraw::keep_latest(Rank& rank) const {
  std::vector<Copy*> order;
  for (Copy& copy : rank) order.push_back(&copy);
  std::ranges::stable_sort(order, [](const Copy* a, const Copy* b) {
    return a->last_used != b->last_used ? a->last_used > b->last_used : a->held && !b->held;
  });
  for (std::size_t place = 0; place < order.size(); ++place) order[place]->held = place < resident_;
}

}  // namespace moecast
