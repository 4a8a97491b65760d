#pragma once
#include "sim/step/operator_maker.h"

namespace moecast {

/// Blocks with a state of constant size instead of a cache, in `count` layers that are alike. In a step with prompts,
/// sequences that generate ride along as prompts of one token.

/// Delta nets (gated, Kimi's) and lightning attention. Heads are split over tensor-parallel ranks.
void add_linear_attention(const AttentionBlock& block, double count, OperatorMaker& maker);

/// Mamba and Mamba-2. Channels and heads are split over tensor-parallel ranks; of Mamba what time step and B, C are
/// made of is summed over them first.
void add_state_space(const StateSpaceBlock& block, double count, OperatorMaker& maker);

/// LSTM and GRU: the inputs of all tokens in one linear layer, then one token after the other.
/// @throws InputError at "tp": every rank would need the whole state.
void add_recurrent(const RecurrentBlock& block, double count, OperatorMaker& maker);

}  // namespace moecast
