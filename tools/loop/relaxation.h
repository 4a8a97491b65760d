#pragma once
#include <span>
#include <string>
#include <vector>

#include "models/core/dtype.h"
#include "sim/predictor.h"

namespace moecast {

/// A question and the machine that it is asked of.
struct Relaxable {
  const Predictor& predictor;
  const Architecture& architecture;
  const Deployment& deployment;
  const Workload& workload;
  const Without& without;
  bool gpu = false;
};

/// The question with one thing changed, predicted again.
struct Relaxation {
  enum class Kind { factor, change };
  Kind kind = Kind::factor;
  std::string key;    ///< "all_to_all", "ep"
  std::string title;  ///< "without all-to-all", "ep 8 instead of 1"
  int ranks = 1;
  Prediction prediction;
};

/// The four factors, removed one after another; then what the owner of as many devices can change: how they are split,
/// how experts lie on them, the format of the weights, the kernels' strategy. What the model or machine does not allow
/// is left out.
std::vector<Relaxation> relax(const Relaxable& question);

/// The one that saves most of the latency, of a kind; nullptr where none saves anything.
const Relaxation* most_helpful(std::span<const Relaxation> relaxations, Relaxation::Kind kind, const Prediction& asked);

}  // namespace moecast
