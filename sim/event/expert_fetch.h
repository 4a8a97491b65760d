#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "models/plan/deployment.h"
#include "models/routing/placement.h"
#include "models/routing/random.h"

namespace moecast {

/// Experts that ranks do not hold: fetched over each rank's own link to the host when a layer uses them.
struct ExpertFetch {
  int resident = 0;  ///< experts of a layer that a rank holds
  ResidencyPolicy policy = ResidencyPolicy::lru;
  FetchOverlap overlap = FetchOverlap::none;
  double expert_bytes = 0;
  double start_s = 0;    ///< of each copy
  double bandwidth = 0;  ///< B/s; 0: everything is held
  /// P(a step uses an expert), [layer][expert]; one row: the same for all layers. Of recorded steps only their order
  /// counts.
  std::vector<std::vector<double>> touched;
  [[nodiscard]] bool active() const { return bandwidth > 0; }
};

/// Which of the experts that layers use are not on their rank.
class FetchDraw {
 public:
  /// @param placements  one a layer.
  FetchDraw(const ExpertFetch& fetch, std::span<const Placement> placements);
  void seed(std::uint64_t seed) { random_ = Random(seed); }
  /// Of a step among others that choose independently: experts were last used so many steps ago, the latest are there.
  /// @param used  rows of each expert. @param fetched  [ranks], set to how many each rank fetches.
  void draw(int layer, std::span<const double> used, std::vector<int>& fetched);
  /// Of recorded steps of a layer, one after another: what is there follows from those before. Before the first one the
  /// most popular are there.
  void replay(int layer, std::span<const double> used, std::vector<int>& fetched);

 private:
  struct Copy {
    int expert = 0;
    double touched = 0;          ///< P(a step uses it)
    std::int64_t last_used = 0;  ///< step; of those never used the more popular ones are higher, below 0
    bool held = false;
  };
  using Rank = std::vector<Copy>;
  void keep_latest(Rank& rank) const;
  void draw_held(Rank& rank);

  std::size_t resident_;
  bool moves_;                                        ///< what is held: it follows use
  std::vector<std::vector<Rank>> layers_;             ///< [layer][rank]
  std::vector<std::int64_t> steps_;                   ///< of each layer, replayed
  std::vector<std::pair<double, std::size_t>> ages_;  ///< while a rank is drawn
  Random random_;
};

}  // namespace moecast
