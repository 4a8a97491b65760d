#include "sim/cost/kernel/unfitted_law.h"

#include <array>
#include <cmath>

#include "models/routing/rank_load.h"

namespace moecast {

double unfitted_seconds(const KernelKey& key, const DeviceLimits& device, std::span<const double> row) {
  const auto law = make_kernel_law(key, device);
  std::array<double, KernelLaw::kMostCoefficients> logs{}, prepared{};
  for (std::size_t i = 0; i < law->coefficients().size(); ++i) logs[i] = law->coefficients()[i].prior;
  law->prepare(logs.data(), prepared.data());
  std::array<double, KernelLaw::kMostTerms> terms{};
  RankLoadCache loads;
  law->derive({row}, loads, terms.data());
  return std::exp(law->log_seconds(terms.data(), prepared.data()));
}

}  // namespace moecast
