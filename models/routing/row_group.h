#pragma once

namespace moecast {

/// `experts` experts that each got `rows` rows. Both may be fractional in an expectation.
struct RowGroup {
  double rows = 0;
  double experts = 0;
};

}  // namespace moecast
