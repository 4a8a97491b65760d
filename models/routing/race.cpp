#include "models/routing/race.h"

namespace moecast {

double time_of_expected_choice(std::span<const double> rates, double count) {
  // At time s each has rung with probability 1 - exp(-w s). Newton from the left: the expectation is concave in s, so
  // that no step passes the root.
  double s = 0;
  for (int i = 0; i < 200; ++i) {
    double missing = count;
    double slope = 0;
    for (const double w : rates) {
      const double rest = std::exp(-w * s);
      missing -= 1 - rest;
      slope += w * rest;
    }
    if (missing < 1e-12 * count || slope <= 0) break;
    s += missing / slope;
  }
  return s;
}

}  // namespace moecast
