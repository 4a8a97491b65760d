#pragma once
#include <cstdint>

#include "models/architecture/architecture.h"
#include "models/core/units.h"

namespace moecast {

/// Weights of a network and how many of them one token uses (experts: the chosen k, shared ones and the router).
struct ParameterCount {
  double total = 0;
  double active = 0;
  double routed_experts = 0;  ///< part of total that lies in routed experts
  ParameterCount& operator+=(const ParameterCount& other);
};

/// One expert or dense network between `hidden` columns: matrices and biases.
double expert_parameters(const ExpertSpec& expert, std::int64_t hidden);
/// The router's network: linear, mlp, after attention, of own cost, or none; its biases included.
/// Hierarchical: the coarse one, and those of `experts` fine ones.
double router_parameters(const RouterSpec& router, std::int64_t experts, std::int64_t hidden);
/// @param source_hidden  width of the encoded tokens that cross attention sees, 0 = hidden.
ParameterCount block_parameters(const Block& block, std::int64_t hidden, std::int64_t source_hidden = 0);
/// Whole model: embeddings, head, blocks, one norm a block and the final norm; multi-token prediction left out.
ParameterCount count_parameters(const Architecture& architecture);

/// Multiply-adds as two operations, no norms, no activations.
/// @param rows  tokens that the network computes.
Flops expert_flops(const ExpertSpec& expert, std::int64_t hidden, double rows);
Flops router_flops(const RouterSpec& router, std::int64_t experts, std::int64_t hidden, double tokens);
/// Projections and core of an attention block. @param visible  keys that all new tokens see together (causal: the sum).
Flops attention_flops(const AttentionBlock& block, std::int64_t hidden, double tokens, double visible);
/// One step over `tokens` new tokens in `sequences` sequences of `context` earlier tokens each, without the head.
Flops step_flops(const Architecture& architecture, double sequences, double new_tokens, double context);

/// Keys of one sequence that a block's new tokens see, summed over `fresh` new tokens after `context` earlier ones.
/// Windows, an indexer and a compressed cache see fewer; blocks that are not causal see all new tokens.
double visible_keys(const AttentionBlock& block, double fresh, double context);

/// Mean k of the router: top_k, or the mean of its distribution.
double mean_top_k(const RouterSpec& router);

/// KV cache of one token in one block (0 for blocks with a constant state).
Bytes kv_bytes_per_token(const AttentionBlock& block, DType dtype);
/// Constant state of one sequence in one block: delta nets, lightning attention, state-space mixers, LSTM.
Bytes state_bytes_per_sequence(const Block& block, DType dtype);
/// Tokens that a block keeps of a context: the window where there is one.
std::int64_t kept_tokens(const AttentionBlock& block, std::int64_t context);

}  // namespace moecast
