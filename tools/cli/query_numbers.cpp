#include "tools/cli/query_numbers.h"

#include <array>

#include "models/core/quantity_text.h"
#include "tools/cli/training_options.h"

namespace moecast {
namespace {

constexpr std::array kNumbers{
    NumberFlag{"--tp", "tp", 1, 4096, "1", kDeploymentGroup, "Tensor-parallel ranks"},
    NumberFlag{"--ep", "ep", 1, 4096, "1", kDeploymentGroup, "Expert-parallel ranks"},
    NumberFlag{"--dp", "dp", 1, 4096, "1", kDeploymentGroup, "Data-parallel ranks"},
    NumberFlag{"--pp", "pp", 1, 4096, "1", kDeploymentGroup, "Pipeline stages"},
    NumberFlag{"--micro-batches", "micro_batches", 1, 4096, "", kDeploymentGroup,
               "Parts of a rank's batch that pass the pipeline stages one after another (default: one a stage)"},
    NumberFlag{"--cp", "cp", 1, 4096, "1", kDeploymentGroup,
               "Context-parallel ranks: share the tokens of prompts and the KV cache"},
    NumberFlag{"--redundant-experts", "redundant_experts", 0, 65536, "0", kDeploymentGroup,
               "Copies of popular experts beside the model's own (GPUs)"},
    NumberFlag{"--draft-tokens", "draft_tokens", 0, 64, "0", kDeploymentGroup,
               "Tokens that the model's layers of multi-token prediction guess ahead of each step (GPUs)"},
    NumberFlag{"--moe-tp", "moe_tp", 1, 4096, "", kDeploymentGroup, "Tensor-parallel ranks inside an expert"},
    NumberFlag{"--threads", "threads", 1, 4096, "", kDeploymentGroup, "CPU threads (default: all that were profiled)"},
    NumberFlag{"--resident-experts", "resident_experts", 0, 65536, "", kDeploymentGroup,
               "With --offload: experts of each MoE layer that stay on a rank (default: as many as fit)"},
    NumberFlag{"--batch", "batch", 1, kMaxSize, "1", kWorkloadGroup, "Sequences in the step"},
    NumberFlag{"--context", "context_tokens", 0, kMaxSize, "1024", kWorkloadGroup, "Tokens already in the KV cache"},
    NumberFlag{"--prompt", "prompt_tokens", 1, kMaxSize, "512", kWorkloadGroup, "New tokens a sequence (prefill)"},
    NumberFlag{"--source", "source_tokens", 1, kMaxSize, "", kWorkloadGroup,
               "Encoder-decoder models: encoded tokens a sequence (default --prompt, in decode --context)"},
    NumberFlag{
        "--prefix", "prefix_tokens", 0, kMaxSize, "0", kWorkloadGroup,
        "Prefill, mixed: tokens of each prompt before the new ones, found in the KV cache (prefix cache, earlier "
        "chunks)"},
    NumberFlag{"--prefill-batch", "prefill_batch", 0, kMaxSize, "0", kWorkloadGroup, "Mixed: sequences in prefill"},
    NumberFlag{"--max-context", "max_context_tokens", 1, kMaxSize, "", kWorkloadGroup,
               "Tokens that a sequence may have, where the model was stretched (default: what it is made for)"},
    NumberFlag{"--copies", "copies", 1, 4096, "1", kWorkloadGroup, "Equal layers cycled through (cache residency)"},
    NumberFlag{"--accumulation", "accumulation", 1, 65536, "1", kTrainingGroup,
               "Micro-batches of a step, one after another"},
    NumberFlag{"--replicas", "replicas", 1, 65536, "1", kTrainingGroup,
               "Copies of the deployment that share the batch and add up their gradients"},
    NumberFlag{"--zero", "zero_stage", 0, 3, "0", kTrainingGroup,
               "ZeRO: replicas share the optimiser's states (1), gradients too (2), weights too (3)"},
    NumberFlag{"--hidden", "hidden", 1, kMaxSize, "", kLayerGroup, "Width of a token"},
    NumberFlag{"--width", "width", 1, kMaxSize, "", kLayerGroup, "Intermediate width of an expert"},
    NumberFlag{"--experts", "experts", 1, 65536, "", kLayerGroup, "Experts"},
    NumberFlag{"--top-k", "top_k", 1, 65536, "", kLayerGroup, "Experts a token uses"},
    NumberFlag{"--tokens", "tokens", 1, kMaxSize, "", kLayerGroup, "Tokens that pass the layer"},
    NumberFlag{"--shared-experts", "shared_experts", 0, 4096, "", kLayerGroup, "Experts that every token passes"},
};

}  // namespace

std::span<const NumberFlag> number_flags() { return kNumbers; }

Combination::Combination(const std::vector<std::vector<std::int64_t>>& axes, std::size_t index) {
  for (std::size_t i = kNumbers.size(); i-- > 0;) {
    const NumberFlag& flag = kNumbers[i];
    if (!axes[i].empty()) {
      values_[flag.name] = axes[i][index % axes[i].size()];
      given_.insert(flag.name);
      index /= axes[i].size();
    } else if (*flag.fallback != '\0') {
      values_[flag.name] = parse_count(flag.fallback, flag.name);
    }
  }
}

}  // namespace moecast
