#pragma once
#include <array>
#include <string_view>
#include <variant>

#include "models/architecture/fields.h"

// The rest of the own schema: blocks other than attention and MoE, and the model itself without its layers.

namespace moecast::schema {

template <class F>
void describe(F& f, Tag<DenseFfnBlock>) {
  f.nested("ffn", &DenseFfnBlock::ffn);
}

template <class F>
void describe(F& f, Tag<StateSpaceBlock>) {
  f("version", &StateSpaceBlock::version, 1, 2);
  f("inner_width", &StateSpaceBlock::inner_width, 0, kMaxWidth);
  f("state_size", &StateSpaceBlock::state_size, 0, kMaxWidth);
  f("heads", &StateSpaceBlock::heads, 0, kMaxWidth);
  f("groups", &StateSpaceBlock::groups, 1, kMaxCount);
  f("conv_size", &StateSpaceBlock::conv_size, 0, kMaxCount);
  f("dt_rank", &StateSpaceBlock::dt_rank, 0, kMaxWidth);
}

template <class F>
void describe(F& f, Tag<RecurrentBlock>) {
  f("width", &RecurrentBlock::width, 0, kMaxWidth);
  f("gates", &RecurrentBlock::gates, 1, 16);
  f("projection", &RecurrentBlock::projection, 0, kMaxWidth);
}

template <class F>
void describe(F& f, Tag<ConvolutionBlock>) {
  f("in_channels", &ConvolutionBlock::in_channels, 0, kMaxWidth);
  f("out_channels", &ConvolutionBlock::out_channels, 0, kMaxWidth);
  f("kernel_height", &ConvolutionBlock::kernel_height, 1, kMaxCount);
  f("kernel_width", &ConvolutionBlock::kernel_width, 1, kMaxCount);
  f("stride", &ConvolutionBlock::stride, 1, kMaxCount);
  f("groups", &ConvolutionBlock::groups, 1, kMaxWidth);
}

template <class F>
void describe(F& f, Tag<Published>) {
  f("total", &Published::total, 0.0, kMaxParameters);
  f("active", &Published::active, 0.0, kMaxParameters);
  f("source", &Published::source);
}

/// Everything of a model but its layers.
template <class F>
void describe(F& f, Tag<Architecture>) {
  f("name", &Architecture::name);
  f("source", &Architecture::source);
  f.nested("published", &Architecture::published);
  f("hidden", &Architecture::hidden, 1, kMaxWidth);
  f("encoder_hidden", &Architecture::encoder_hidden, 0, kMaxWidth);
  f("vocabulary", &Architecture::vocabulary, 0, kMaxTokens);
  f("tied_embeddings", &Architecture::tied_embeddings);
  f("max_context", &Architecture::max_context, 0, kMaxTokens);
  f("dtype", &Architecture::dtype);
  f("expert_dtype", &Architecture::expert_dtype);
  f("kv_dtype", &Architecture::kv_dtype);
  f("other_parameters", &Architecture::other_parameters, 0.0, kMaxParameters);
  f("position_embedding_parameters", &Architecture::position_embedding_parameters, 0.0, kMaxParameters);
  f("notes", &Architecture::notes);
}

/// Words of "type" in the order of the alternatives of Block.
inline constexpr std::array<std::string_view, std::variant_size_v<Block>> kBlockTypes{
    "attention", "moe", "ffn", "state-space", "recurrent", "convolution", "own-cost"};

/// Key that marks a file of the own schema; its value is the version.
inline constexpr std::string_view kFormatKey = "moecast_architecture";
inline constexpr std::int64_t kFormatVersion = 1;
/// Layers of one stack (a run may repeat).
inline constexpr std::size_t kMaxLayers = 16384;

}  // namespace moecast::schema
