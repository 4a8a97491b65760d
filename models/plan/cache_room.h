#pragma once
#include <cstdint>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/engine.h"
#include "models/plan/memory.h"

namespace moecast {

/// What a sequence takes of the KV cache of its rank.
struct CacheSize {
  double token = 0;  ///< bytes
  double state = 0;  ///< bytes of a sequence, whatever its length
};

/// A straight line through a block and the longest request: exact unless attention has windows.
/// @param longest  tokens of a sequence.
CacheSize cache_size(const Architecture& architecture, const Deployment& deployment, std::int64_t longest);

/// What a rank holds while prompts of so many tokens are computed on each replica of attention; nothing of the cache.
MemoryBreakdown memory_beside_cache(const Architecture& architecture, const Deployment& deployment,
                                    std::int64_t batched_tokens);

/// Bytes of a rank's memory that an engine makes its cache; negative where weights do not fit.
/// @param ratio  that the engine may use: of the whole memory, or of what is free (EngineSpec::caches_free_memory).
double cache_room(const EngineSpec& engine, double memory, double ratio, const MemoryBreakdown& beside);

/// Sequences of so many tokens whose cache all ranks together have room for. @param room  bytes of a rank.
double sequences_in_cache(const Architecture& architecture, const Deployment& deployment, double room, double tokens);

}  // namespace moecast
