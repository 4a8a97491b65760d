#include "tools/loop/strata.h"

#include <algorithm>

namespace moecast {

void Strata::add(const std::string& name, const Outcome& outcome) {
  const auto [found, fresh] = index_.emplace(name, outcomes_.size());
  if (fresh) {
    names_.push_back(name);
    outcomes_.emplace_back();
  }
  outcomes_[found->second].push_back(outcome);
}

std::vector<Stratum> Strata::summaries(std::span<const std::string_view> order) const {
  std::vector<Stratum> strata;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (auto summary = summarise_errors(outcomes_[i])) strata.push_back({names_[i], *summary});
  }
  const auto rank = [&](const std::string& name) {
    const auto found = std::find(order.begin(), order.end(), name.substr(0, name.find(' ')));
    return found == order.end() ? std::ptrdiff_t{-1} : found - order.begin();
  };
  std::ranges::stable_sort(strata, [&](const Stratum& a, const Stratum& b) {
    return rank(a.name) != rank(b.name) ? rank(a.name) < rank(b.name) : a.name < b.name;
  });
  return strata;
}

}  // namespace moecast
