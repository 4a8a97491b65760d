#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace moecast {

/// An expert of a group of ranks.
struct GroupMember {
  std::int32_t expert = 0;
  double share = 1;  ///< of its copies that the group holds, in (0, 1]
};

/// Probability that a token reaches each of some groups: that at least one of the k distinct experts that it draws by
/// popularity is taken there. A drawn expert goes to one of its copies, each as likely, whatever the others do.
/// Exact up to the quadrature (1e-4).
std::vector<double> reach_probabilities(std::span<const double> popularity,
                                        const std::vector<std::vector<GroupMember>>& groups, int top_k);

}  // namespace moecast
