#include "models/routing/reach.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "models/routing/race.h"

namespace moecast {
namespace {

/// Distribution of a count below k, [k] probabilities; what is above is cut off.
using Count = std::vector<double>;

void multiply(const double* a, const double* b, std::size_t k, double* out) {
  for (std::size_t i = 0; i < k; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j <= i; ++j) sum += a[j] * b[i - j];
    out[i] = sum;
  }
}

/// Experts that some group holds only a part of: products of their counts, of which a few factors change for each
/// group. A tree, because dividing a factor out would lose all digits where an expert has nearly surely rung.
class SharedCounts {
 public:
  SharedCounts(std::size_t experts, std::size_t k)
      : k_(k),
        leaves_(std::bit_ceil(std::max<std::size_t>(experts, 1))),
        whole_(2 * leaves_ * k, 0.0),
        unmarked_(2 * leaves_ * k, 0.0),
        density_(2 * leaves_ * k, 0.0),
        changed_(2 * leaves_, 0),
        product_(k) {
    for (std::size_t node = 0; node < 2 * leaves_; ++node) whole_[node * k] = 1;
  }

  /// Chances that each has not rung by now.
  void set_time(std::span<const double> not_rung) {
    for (std::size_t i = 0; i < not_rung.size(); ++i) {
      double* leaf = at(whole_, leaves_ + i);
      leaf[0] = not_rung[i];
      if (k_ > 1) leaf[1] = 1 - not_rung[i];
    }
    for (std::size_t node = leaves_; node-- > 1;)
      multiply(at(whole_, 2 * node), at(whole_, 2 * node + 1), k_, at(whole_, node));
  }

  struct Member {
    std::size_t place;
    double share;
    double rate;
  };
  /// For a group that holds shares of some: the count of those that have rung, none of them in the group, and the rate
  /// at which one rings there while none has. Valid until the next call.
  void look(std::span<const Member> members, const double*& unmarked, const double*& density) {
    path_.clear();
    ++stamp_;
    for (const Member& member : members) {
      const std::size_t leaf = leaves_ + member.place;
      const double* all = at(whole_, leaf);
      double* kept = at(unmarked_, leaf);
      double* rings = at(density_, leaf);
      std::fill(rings, rings + k_, 0.0);
      kept[0] = all[0];
      if (k_ > 1) kept[1] = all[1] * (1 - member.share);
      rings[0] = member.rate * member.share * all[0];
      change(leaf);
    }
    for (std::size_t i = 0; i < path_.size(); ++i) {
      const std::size_t node = path_[i] / 2;
      if (node >= 1 && changed_[node] != stamp_) change(node);
    }
    // Children come before their parents: leaves first, level by level.
    for (const std::size_t node : path_) {
      if (node < leaves_) join(node);
    }
    unmarked = path_.empty() ? at(whole_, 1) : at(unmarked_, 1);
    density = path_.empty() ? nullptr : at(density_, 1);
  }

 private:
  double* at(Count& counts, std::size_t node) { return counts.data() + node * k_; }
  void change(std::size_t node) {
    changed_[node] = stamp_;
    path_.push_back(node);
  }
  void join(std::size_t node) {
    const std::size_t left = 2 * node;
    const std::size_t right = left + 1;
    const bool left_changed = changed_[left] == stamp_;
    const bool right_changed = changed_[right] == stamp_;
    const double* a = at(left_changed ? unmarked_ : whole_, left);
    const double* b = at(right_changed ? unmarked_ : whole_, right);
    multiply(a, b, k_, at(unmarked_, node));
    double* density = at(density_, node);
    std::fill(density, density + k_, 0.0);
    if (left_changed) add_product(at(density_, left), b, density);
    if (right_changed) add_product(at(density_, right), a, density);
  }
  void add_product(const double* a, const double* b, double* sum) {
    multiply(a, b, k_, product_.data());
    for (std::size_t j = 0; j < k_; ++j) sum[j] += product_[j];
  }

  std::size_t k_, leaves_;
  Count whole_, unmarked_, density_;
  std::vector<std::uint32_t> changed_;
  std::uint32_t stamp_ = 0;
  std::vector<std::size_t> path_;
  Count product_;
};

/// Experts of the groups: whole ones, whose rates add, and shared ones.
struct Membership {
  std::vector<std::vector<double>> whole;  ///< rates of each group's own experts
  std::vector<double> total;               ///< their sums
  std::vector<std::vector<SharedCounts::Member>> shared;
  std::vector<double> shared_rates;
};

Membership membership_of(std::span<const double> popularity, const std::vector<std::vector<GroupMember>>& groups) {
  Membership found;
  std::vector<std::int64_t> place(popularity.size(), -1);
  for (const std::vector<GroupMember>& group : groups) {
    found.whole.emplace_back();
    found.shared.emplace_back();
    for (const GroupMember& member : group) {
      const double rate = popularity[static_cast<std::size_t>(member.expert)];
      if (rate <= 0) continue;
      if (member.share >= 1) {
        found.whole.back().push_back(rate);
        continue;
      }
      std::int64_t& at = place[static_cast<std::size_t>(member.expert)];
      if (at < 0) {
        at = std::ssize(found.shared_rates);
        found.shared_rates.push_back(rate);
      }
      found.shared.back().push_back({static_cast<std::size_t>(at), member.share, rate});
    }
    found.total.push_back(std::accumulate(found.whole.back().begin(), found.whole.back().end(), 0.0));
  }
  return found;
}

/// Every token draws all experts that have a weight.
std::vector<double> reach_of_all(const Membership& membership) {
  std::vector<double> reached;
  for (std::size_t g = 0; g < membership.total.size(); ++g) {
    double missed = membership.total[g] > 0 ? 0 : 1;
    for (const SharedCounts::Member& member : membership.shared[g]) missed *= 1 - member.share;
    reached.push_back(1 - missed);
  }
  return reached;
}

}  // namespace

std::vector<double> reach_probabilities(std::span<const double> popularity,
                                        const std::vector<std::vector<GroupMember>>& groups, int top_k) {
  const std::size_t count = groups.size();
  const auto k = static_cast<std::size_t>(top_k);
  const Membership membership = membership_of(popularity, groups);
  if (std::ranges::count_if(popularity, [](double rate) { return rate > 0; }) <= top_k) return reach_of_all(membership);
  // P(first of the group rings while fewer than k others have) = integral of its rate times P(it is the first of the
  // group, fewer than k others by s) ds. Others are the groups before and after: products, never a quotient.
  const double scale = time_of_expected_choice(popularity, top_k);
  double fastest = std::ranges::max(popularity);
  for (const double total : membership.total) fastest = std::max(fastest, total);
  std::vector<double> reached(count, 0);
  Count own(count * k), before((count + 1) * k, 0.0), after(k), others(k), product(k), group_rate(k);
  SharedCounts shared(membership.shared_rates.size(), k);
  std::vector<double> not_rung(membership.shared_rates.size());
  bool first = true;
  for (RaceTimes times(fastest, top_k);; times.advance(), first = false) {
    const double s = times.now();
    const double ds = times.weight() + (first ? times.weight_before() : 0);
    for (std::size_t i = 0; i < not_rung.size(); ++i) not_rung[i] = std::exp(-membership.shared_rates[i] * s);
    shared.set_time(not_rung);
    std::fill(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(k), 0.0);
    before[0] = 1;
    for (std::size_t g = 0; g < count; ++g) {
      double* counts = own.data() + g * k;
      std::fill(counts, counts + k, 0.0);
      counts[0] = 1;
      for (const double rate : membership.whole[g]) {
        const double p = -std::expm1(-rate * s);
        for (std::size_t j = k; j-- > 1;) counts[j] = counts[j] * (1 - p) + counts[j - 1] * p;
        counts[0] *= 1 - p;
      }
      multiply(before.data() + g * k, counts, k, before.data() + (g + 1) * k);
    }
    std::fill(after.begin(), after.end(), 0.0);
    after[0] = 1;
    double most = 0;
    for (std::size_t g = count; g-- > 0;) {
      const double* unmarked = nullptr;
      const double* density = nullptr;
      shared.look(membership.shared[g], unmarked, density);
      const double none = std::exp(-membership.total[g] * s);
      for (std::size_t j = 0; j < k; ++j) {
        group_rate[j] = none * (membership.total[g] * unmarked[j] + (density != nullptr ? density[j] : 0));
      }
      multiply(before.data() + g * k, after.data(), k, others.data());
      multiply(others.data(), group_rate.data(), k, product.data());
      const double added = std::accumulate(product.begin(), product.end(), 0.0) * ds;
      reached[g] += added;
      most = std::max(most, added);
      multiply(after.data(), own.data() + g * k, k, product.data());
      after.swap(product);
    }
    if (times.is_last(scale, most)) break;
  }
  for (double& probability : reached) probability = std::min(1.0, probability);
  return reached;
}

}  // namespace moecast
