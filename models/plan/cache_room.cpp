#include "models/plan/cache_room.h"

#include <algorithm>
#include <cmath>

namespace moecast {
namespace {

/// Cache of one sequence of so many tokens on a rank.
double cache_bytes(const Architecture& architecture, const Deployment& deployment, std::int64_t tokens) {
  Workload workload;
  workload.batch = deployment.dp;
  workload.context = tokens - 1;
  return memory_per_rank(architecture, deployment, workload).kv_cache.value();
}

}  // namespace

CacheSize cache_size(const Architecture& architecture, const Deployment& deployment, std::int64_t longest) {
  const std::int64_t block = deployment.kv_block_tokens;
  const std::int64_t most = std::max<std::int64_t>(2, (longest + block - 1) / block) * block;
  const double least_bytes = cache_bytes(architecture, deployment, block);
  CacheSize size;
  size.token = (cache_bytes(architecture, deployment, most) - least_bytes) / static_cast<double>(most - block);
  size.state = std::max(0.0, least_bytes - size.token * static_cast<double>(block));
  return size;
}

MemoryBreakdown memory_beside_cache(const Architecture& architecture, const Deployment& deployment,
                                    std::int64_t batched_tokens) {
  Workload step;
  step.phase = Phase::prefill;
  step.batch = deployment.dp;
  step.prompt = batched_tokens;
  MemoryBreakdown beside = memory_per_rank(architecture, deployment, step);
  beside.kv_cache = Bytes(0);
  return beside;
}

double cache_room(const EngineSpec& engine, double memory, double ratio, const MemoryBreakdown& beside) {
  const double others = beside.total().value();
  return engine.caches_free_memory ? ratio * (memory - others) : ratio * memory - others;
}

double sequences_in_cache(const Architecture& architecture, const Deployment& deployment, double room, double tokens) {
  const CacheSize size = cache_size(architecture, deployment, std::llround(tokens));
  const auto block = static_cast<double>(deployment.kv_block_tokens);
  const double sequence = size.state + size.token * std::ceil(tokens / block) * block;
  return deployment.dp * std::floor(std::max(0.0, room) / sequence);
}

}  // namespace moecast
