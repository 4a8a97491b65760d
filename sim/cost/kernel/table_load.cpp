#include "sim/cost/kernel/table_load.h"

#include <string_view>

#include "hwprofiles/kernel_layout.h"
#include "models/routing/group_limited_load.h"

namespace moecast {
namespace {

constexpr double kTopK = 8;

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

/// SGLang 0.5.10 (A100): a rank takes as long for balanced rows of all ranks as for its own until there are as many
/// ranks as slots a token, then as many times less, at every shape and k.
bool computes_whole_tokens(const KernelKey& key) { return key.framework == "sglang" && key.version == "0.5.10"; }

}  // namespace

std::optional<RankLoad> table_load(const KernelKey& key, std::span<const double> row, RankLoadCache& loads) {
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
  if (computes_whole_tokens(key)) {
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
