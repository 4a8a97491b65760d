#include "models/architecture/names.h"

#include <array>

namespace moecast {
namespace {

template <class Enum>
using Entry = std::pair<std::string_view, Enum>;

constexpr std::array kActivations{
    Entry<Activation>{"relu", Activation::relu}, Entry<Activation>{"relu-squared", Activation::relu_squared},
    Entry<Activation>{"gelu", Activation::gelu}, Entry<Activation>{"silu", Activation::silu},
    Entry<Activation>{"identity", Activation::identity}};

constexpr std::array kExpertKinds{
    Entry<ExpertKind>{"ffn", ExpertKind::ffn}, Entry<ExpertKind>{"transformer", ExpertKind::transformer},
    Entry<ExpertKind>{"convolution", ExpertKind::convolution}, Entry<ExpertKind>{"recurrent", ExpertKind::recurrent},
    Entry<ExpertKind>{"identity", ExpertKind::identity}};

constexpr std::array kRouterKinds{
    Entry<RouterKind>{"token-choice", RouterKind::token_choice},
    Entry<RouterKind>{"expert-choice", RouterKind::expert_choice}, Entry<RouterKind>{"hash", RouterKind::hash},
    Entry<RouterKind>{"soft", RouterKind::soft}, Entry<RouterKind>{"architecture", RouterKind::architecture}};

constexpr std::array kRouterNetworks{
    Entry<RouterNetwork>{"linear", RouterNetwork::linear}, Entry<RouterNetwork>{"mlp", RouterNetwork::mlp},
    Entry<RouterNetwork>{"attention", RouterNetwork::attention},
    Entry<RouterNetwork>{"own-cost", RouterNetwork::own_cost}, Entry<RouterNetwork>{"none", RouterNetwork::none}};

constexpr std::array kScoreFunctions{Entry<ScoreFunction>{"softmax", ScoreFunction::softmax},
                                     Entry<ScoreFunction>{"sigmoid", ScoreFunction::sigmoid},
                                     Entry<ScoreFunction>{"sqrt-softplus", ScoreFunction::sqrt_softplus}};

constexpr std::array kScoreOrders{Entry<ScoreOrder>{"score-then-top-k", ScoreOrder::score_then_top_k},
                                  Entry<ScoreOrder>{"top-k-then-score", ScoreOrder::top_k_then_score}};

constexpr std::array kNoiseKinds{
    Entry<NoiseKind>{"none", NoiseKind::none}, Entry<NoiseKind>{"gaussian", NoiseKind::gaussian},
    Entry<NoiseKind>{"learned-gaussian", NoiseKind::learned_gaussian}, Entry<NoiseKind>{"uniform", NoiseKind::uniform},
    Entry<NoiseKind>{"jitter", NoiseKind::jitter}};

constexpr std::array kGranularities{
    Entry<Granularity>{"token", Granularity::token}, Entry<Granularity>{"segment", Granularity::segment},
    Entry<Granularity>{"sequence", Granularity::sequence}, Entry<Granularity>{"task", Granularity::task},
    Entry<Granularity>{"architecture", Granularity::architecture}};

constexpr std::array kOverflows{
    Entry<Overflow>{"drop", Overflow::drop}, Entry<Overflow>{"next-best", Overflow::next_best},
    Entry<Overflow>{"reroute-random", Overflow::reroute_random}, Entry<Overflow>{"queue", Overflow::queue}};

constexpr std::array kRoundings{Entry<CapacityRounding>{"ceil", CapacityRounding::ceil},
                                Entry<CapacityRounding>{"floor", CapacityRounding::floor}};

constexpr std::array kAttentionKinds{Entry<AttentionKind>{"full", AttentionKind::full},
                                     Entry<AttentionKind>{"sliding-window", AttentionKind::sliding_window},
                                     Entry<AttentionKind>{"chunked", AttentionKind::chunked},
                                     Entry<AttentionKind>{"latent", AttentionKind::latent},
                                     Entry<AttentionKind>{"sparse-latent", AttentionKind::sparse_latent},
                                     Entry<AttentionKind>{"cross", AttentionKind::cross},
                                     Entry<AttentionKind>{"gated-delta-net", AttentionKind::gated_delta_net},
                                     Entry<AttentionKind>{"lightning", AttentionKind::lightning},
                                     Entry<AttentionKind>{"kimi-delta", AttentionKind::kimi_delta}};

}  // namespace

template <>
NameTable<Activation> enum_names<Activation>() {
  return kActivations;
}
template <>
NameTable<ExpertKind> enum_names<ExpertKind>() {
  return kExpertKinds;
}
template <>
NameTable<RouterKind> enum_names<RouterKind>() {
  return kRouterKinds;
}
template <>
NameTable<RouterNetwork> enum_names<RouterNetwork>() {
  return kRouterNetworks;
}
template <>
NameTable<ScoreFunction> enum_names<ScoreFunction>() {
  return kScoreFunctions;
}
template <>
NameTable<ScoreOrder> enum_names<ScoreOrder>() {
  return kScoreOrders;
}
template <>
NameTable<NoiseKind> enum_names<NoiseKind>() {
  return kNoiseKinds;
}
template <>
NameTable<Granularity> enum_names<Granularity>() {
  return kGranularities;
}
template <>
NameTable<Overflow> enum_names<Overflow>() {
  return kOverflows;
}
template <>
NameTable<CapacityRounding> enum_names<CapacityRounding>() {
  return kRoundings;
}
template <>
NameTable<AttentionKind> enum_names<AttentionKind>() {
  return kAttentionKinds;
}

}  // namespace moecast
