#pragma once
#include "sim/step/operator_maker.h"

namespace moecast {

/// Adds projections and cores of grouped-query, windowed, chunked, cross, latent and sparse attention in `count` layers
/// that are alike. Heads are split over tensor-parallel ranks; the latent row, an indexer and what its few heads do are
/// on every one of them.
void add_softmax_attention(const AttentionBlock& block, double count, OperatorMaker& maker);

}  // namespace moecast
