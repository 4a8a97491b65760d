#include "profiler/reference/support.h"

#include <algorithm>
#include <string>

#include "models/core/error.h"

namespace moecast {
namespace {

void require(bool supported, const std::string& where, const std::string& what) {
  if (!supported) {
    throw UsageError(where, what + ": not supported yet by the reference runtime",
                     "it can be predicted, but not executed here");
  }
}

void require_expert(const ExpertSpec& expert, const std::string& where, bool lone) {
  require(expert.kind == ExpertKind::ffn || expert.kind == ExpertKind::identity, where, "this kind of expert");
  require(expert.output == 0 || lone, where, "an own output width inside a model");
  if (expert.kind == ExpertKind::identity) return;
  if (expert.width < 1 || expert.depth < 1) throw UsageError(where, "width and depth must be at least 1", {});
  require(expert.depth == 1 || expert.output == 0, where, "depth above 1 with an own output width");
}

void require_router(const RouterSpec& router, std::int64_t experts, const std::string& where) {
  require(router.kind != RouterKind::architecture, where, "a router of whole architectures");
  require(router.network == RouterNetwork::linear || router.network == RouterNetwork::mlp ||
              router.kind == RouterKind::hash,
          where, "this router network");
  require(router.top_k_distribution.empty(), where, "a distribution of top-k");
  require(router.granularity == Granularity::token, where, "routing of more than a token at once");
  require(router.coarse_experts == 0, where, "hierarchical routing");
  if (router.top_k < 1 || router.top_k > experts) {
    throw UsageError(where, "top-k " + std::to_string(router.top_k) + " of " + std::to_string(experts) + " experts",
                     "choose between 1 and the number of experts");
  }
  if (router.groups < 1 || experts % router.groups != 0 || router.top_groups > router.groups ||
      (router.top_groups < router.groups && router.top_k > experts / router.groups * router.top_groups)) {
    throw UsageError(where, "group limits do not fit the number of experts", {});
  }
}

void require_moe(const MoeBlock& block, const std::string& where, bool lone) {
  if (block.expert_count() < 1) throw UsageError(where, "no experts", {});
  require(block.latent_width == 0, where, "latent experts");
  require(block.zero_experts == 0, where, "zero experts");
  require(block.sub_token_heads == 1, where, "sub-tokens");
  for (const ExpertGroup& group : block.experts) {
    require_expert(group.expert, where, lone);
    require(group.modality.empty(), where, "experts of one modality");
    require(group.expert.output == block.experts.front().expert.output, where, "experts that differ in output width");
  }
  const bool own_output = block.experts.front().expert.output != 0;
  require(!own_output || (block.shared.count == 0 && !block.dense_residual), where,
          "an own output width beside shared experts");
  if (block.shared.count > 0) require_expert(block.shared.expert, where, false);
  if (block.dense_residual) require_expert(*block.dense_residual, where, false);
  require_router(block.router, block.expert_count(), where + ".router");
}

void require_attention(const AttentionBlock& block, const std::string& where) {
  require(block.kind == AttentionKind::full && block.causal && block.window == 0, where, "this kind of attention");
  require(!block.bias_qkv && !block.bias_out && !block.qk_norm && !block.output_gate, where,
          "attention with bias, norm or gate");
  require(block.value_head_dim == 0 || block.value_head_dim == block.head_dim, where, "another width of values");
  require(block.head_dim % 2 == 0, where, "an odd head width");
  if (block.heads < 1 || block.kv_heads < 1 || block.heads % block.kv_heads != 0) {
    throw UsageError(where, "heads must be a multiple of kv_heads", {});
  }
}

void require_block(const Block& block, const std::string& where, bool lone) {
  if (const auto* moe = std::get_if<MoeBlock>(&block)) return require_moe(*moe, where, lone);
  if (const auto* attention = std::get_if<AttentionBlock>(&block)) return require_attention(*attention, where);
  if (const auto* dense = std::get_if<DenseFfnBlock>(&block)) return require_expert(dense->ffn, where, lone);
  require(false, where, "this kind of block");
}

}  // namespace

DType executed_dtype(const Architecture& architecture, const Deployment& deployment) {
  return deployment.dtype.value_or(architecture.dtype);
}

std::int64_t step_query(const Workload& workload) { return workload.phase == Phase::prefill ? workload.prompt : 1; }

std::int64_t executed_tokens(const Workload& workload) { return workload.batch * step_query(workload); }

void require_executable(const Architecture& architecture, const Deployment& deployment, const Workload& workload) {
  require(deployment.tp == 1 && deployment.ep == 1 && deployment.dp == 1 && deployment.pp == 1, "deployment",
          "more than one rank");
  const DType dtype = executed_dtype(architecture, deployment);
  require(dtype == DType::fp32 || dtype == DType::bf16, "dtype", std::string(to_string(dtype)));
  require(architecture.expert_dtype.value_or(dtype) == dtype && architecture.kv_dtype.value_or(dtype) == dtype, "dtype",
          "experts or KV cache in another format");
  require(architecture.encoder.empty(), "encoder", "an encoder");
  require(architecture.multi_token_prediction.empty(), "multi_token_prediction", "extra prediction layers");
  require(workload.phase == Phase::prefill || workload.phase == Phase::decode, "phase", "mixed steps and encoders");
  if (architecture.hidden < 1 || architecture.decoder.empty()) throw UsageError(architecture.name, "no layers", {});
  if (workload.batch < 1 || step_query(workload) < 1 || workload.context < 0 || workload.copies < 1) {
    throw UsageError("workload", "batch, prompt and copies must be at least 1, context at least 0", {});
  }
  const bool lone = is_lone_block(architecture);
  for (std::size_t layer = 0; layer < architecture.decoder.size(); ++layer) {
    for (const Block& block : architecture.decoder[layer].blocks) {
      require_block(block, "layers." + std::to_string(layer), lone);
    }
  }
  require(workload.rows_per_expert.empty() || lone, "rows_per_expert", "an exact histogram for a whole model");
}

}  // namespace moecast
