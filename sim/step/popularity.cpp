#include "sim/step/popularity.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace moecast {

std::optional<ExpertLoad> load_beyond_sigma(const ExpertLoad& load) {
  if (load.kind == LoadKind::uniform || load.kind == LoadKind::log_normal) return std::nullopt;
  return load;
}

double popularity_sigma(const Architecture& architecture, const ExpertLoad& load) {
  if (load.kind == LoadKind::uniform) return 0;
  if (load.kind == LoadKind::log_normal) return load.parameter;
  for (const Layer& layer : architecture.decoder) {
    for (const Block& block : layer.blocks) {
      const auto* moe = std::get_if<MoeBlock>(&block);
      if (moe == nullptr) continue;
      // Experts that nobody ever chooses are as good as not there.
      std::vector<double> logs = expert_popularity(load, moe->expert_count());
      std::erase_if(logs, [](double x) { return x <= 0; });
      for (double& x : logs) x = std::log(x);
      const auto count = static_cast<double>(logs.size());
      const double mean = std::accumulate(logs.begin(), logs.end(), 0.0) / count;
      double squares = 0;
      for (const double x : logs) squares += (x - mean) * (x - mean);
      return std::sqrt(squares / count);
    }
  }
  return 0;
}

}  // namespace moecast
