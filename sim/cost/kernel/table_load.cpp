#include "sim/cost/kernel/table_load.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include "hwprofiles/kernel_layout.h"
#include "models/routing/group_limited_load.h"

namespace moecast {
namespace {

constexpr double kTopK = 8;
constexpr double kWholeTokensExperts = 128;
constexpr std::int64_t kExactBf16 = 256;
constexpr double kDispatchedBlock = 128;  ///< rows

/// DeepSeek-V3's: its experts lie in eight groups, of which a token uses four.
struct GroupedShape {
  double hidden = 7168;
  double width = 2048;
  double experts = 256;
};

/// At 8 to 16,384 tokens of H200 and B200 the time of a rank falls with its share of half of the experts while weights
/// decide, and to 1/2 + 1/ep (down to four experts a rank) where arithmetic does. vLLM and SGLang route so where the
/// model does (vLLM's kernel before 0.24 is given the experts); one kernel of TensorRT-LLM routes every model with
/// eight slots so.
bool routes_by_groups(const KernelKey& key, double hidden, double width, double experts) {
  if (key.framework == "trtllm") return key.kernel.find("min_latency") != std::string_view::npos;
  if (key.kernel == "vllm_fused_moe") return false;
  const GroupedShape shape;
  return (key.framework == "vllm" || key.framework == "sglang") && hidden == shape.hidden && width == shape.width &&
         experts == shape.experts;
}

/// SGLang's Triton kernel takes as long for balanced rows of all ranks as for its own until there are as many ranks as
/// slots a token, then as many times less: 0.5.10 (A100) at every shape and k, 0.5.14 where there are at most 128
/// experts (at 16,384 tokens of H200 and ep 1, 2, 4, 8: 15.2, 15.4, 7.3, 3.7 ms with two of 8 experts, 9.3, 5.3, 3.3,
/// 2.4 ms with eight of 256).
bool computes_whole_tokens(const KernelKey& key, double top_k, double experts) {
  if (key.framework != "sglang") return false;
  if (key.version == "0.5.10") return true;
  return key.version == "0.5.14" && key.kernel == "sglang_fused_moe_triton" && top_k > 1 &&
         experts <= kWholeTokensExperts && (key.dtype == "bfloat16" || key.dtype == "fp8_block");
}

/// TensorRT-LLM's kernel of few tokens with two of eight experts: neither ranks nor loads change its time, which at
/// four tokens leaves 25 TB/s for all eight experts' weights and 4 TB/s for one's.
bool runs_one_expert(const KernelKey& key, double top_k, double experts) {
  return key.framework == "trtllm" && key.kernel.find("min_latency") != std::string_view::npos && top_k == 2 &&
         experts == 8;
}

/// Rounded to bfloat16, ties to even.
double in_bf16(double value) {
  auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000U;
  return std::bit_cast<float>(bits);
}

/// vLLM 0.24's balanced rows of one rank: numbers of experts above 256 were computed in bf16, which has no odd numbers
/// there, while tokens are fewer than the stride between a token's experts. (Ten of 512 experts, 48 tokens: 361 instead
/// of 473 are chosen, and B200 streams at 7.3 instead of 9.6 TB/s.)
std::optional<RankLoad> bf16_numbers(const KernelKey& key, std::int64_t tokens, std::int64_t top_k,
                                     std::int64_t experts) {
  if (key.framework != "vllm" || !key.version.starts_with("0.24") || experts <= kExactBf16) return std::nullopt;
  const std::int64_t stride = (experts + top_k - 1) / top_k;
  if (tokens >= stride) return std::nullopt;
  std::vector<double> rows(static_cast<std::size_t>(experts), 0.0);
  for (std::int64_t token = 0; token < tokens; ++token) {
    const double first = in_bf16(static_cast<double>(token * stride) / static_cast<double>(tokens));
    for (std::int64_t slot = 0; slot < top_k; ++slot) {
      const double number = in_bf16(first + in_bf16(static_cast<double>(slot * stride)));
      ++rows[static_cast<std::size_t>(std::fmod(number, static_cast<double>(experts)))];
    }
  }
  return rank_load_of(rows);
}

/// SGLang's kernel behind DeepEP's normal dispatch, uniform rows: they come in blocks of an expert each.
RankLoad in_blocks(double rows, double experts_of_rank) {
  const double distinct = std::clamp(rows / kDispatchedBlock, 1.0, experts_of_rank);
  return {rows, distinct, rows / distinct};
}

}  // namespace

std::optional<RankLoad> table_load(const KernelKey& key, std::span<const double> row, RankLoadCache& loads) {
  if (key.layout == "wideep_context_moe") {
    static const KernelLayout& behind = *find_kernel_layout("wideep_context_moe");
    if (row[behind.column(kDistributionColumn)] != 0) return std::nullopt;
    const double ep = row[behind.column("moe_ep_size")];
    return in_blocks(row[behind.column("num_tokens")] * row[behind.column("topk")] / ep,
                     row[behind.column("num_experts")] / ep);
  }
  if (key.layout != "moe") return std::nullopt;
  static const KernelLayout& layout = *find_kernel_layout("moe");
  static const std::size_t tokens = layout.column("num_tokens");
  static const std::size_t hidden = layout.column("hidden_size");
  static const std::size_t width = layout.column("inter_size");
  static const std::size_t top_k = layout.column("topk");
  static const std::size_t experts = layout.column("num_experts");
  static const std::size_t ranks = layout.column("moe_ep_size");
  static const std::size_t alpha = layout.column(kDistributionColumn);
  const auto whole = [&](std::size_t column) { return static_cast<std::int64_t>(row[column]); };
  if (runs_one_expert(key, row[top_k], row[experts])) return RankLoad{row[tokens], 1, row[tokens]};
  if (row[alpha] == 0 && row[ranks] <= 1) {
    if (const auto load = bf16_numbers(key, whole(tokens), whole(top_k), whole(experts))) return load;
  }
  if (computes_whole_tokens(key, row[top_k], row[experts])) {
    if (row[ranks] <= 1) return std::nullopt;
    const RankLoad said = loads(whole(tokens), whole(top_k), whole(experts), whole(ranks), row[alpha]);
    return with_whole_tokens(said, whole(tokens), whole(top_k), row[alpha]);
  }
  const bool limited = row[top_k] == kTopK && row[experts] >= 2 * kTopK &&
                       whole(experts) % ExpertGroups{}.groups == 0 &&
                       routes_by_groups(key, row[hidden], row[width], row[experts]);
  if (!limited) return std::nullopt;
  return loads.grouped(whole(tokens), whole(top_k), whole(experts), whole(ranks), row[alpha]);
}

}  // namespace moecast
