// The flags of a query and their help; what they mean is read in query_options.cpp.
#include <fmt/format.h>

#include <string>

#include "tools/cli/command.h"
#include "tools/cli/query_numbers.h"
#include "tools/cli/query_options.h"

namespace moecast {

void add_query_options(const Command& command, QueryOptions& options) {
  add_text_option(command, "--model", options.model, "NAME|FILE",
                  "Name (moecast list models), config.json or own file");
  add_text_option(command, "--hw", options.hw, "NAME|FOLDER",
                  "Profile (moecast list hw); this-machine is the newest made here");
  for (const NumberFlag& flag : number_flags()) {
    std::string help = flag.help;
    if (*flag.fallback != '\0') help += fmt::format(" (default {})", flag.fallback);
    command.add_option(flag.name, options.numbers[flag.name], help).type_name("N").group(flag.group).not_empty();
  }
  const auto text = [&](const char* name, std::string& value, const char* type, const char* group, const char* help) {
    command.add_option(name, value, help).type_name(type).group(group).not_empty();
  };
  text("--backend", options.backend, "NAME", kDeploymentGroup, "onednn, openblas, eigen (default: the profile's)");
  text("--strategy", options.strategy, "NAME", kDeploymentGroup,
       "sorted-grouped (default), per-expert-loop, capacity-padded, dense-mask");
  text("--dtype", options.dtype, "NAME", kDeploymentGroup,
       "fp32, bf16, ... (default: the model's, or what the machine was profiled in)");
  text("--kv-dtype", options.kv_dtype, "NAME", kDeploymentGroup,
       "Of the KV cache: bf16, fp8, ... (default: the model's, else that of activations)");
  text("--all-reduce", options.all_reduce, "ENGINE", kDeploymentGroup, kAllReduceHelp);
  command
      .add_flag(
          "--eager", options.eager,
          "GPUs: launch kernels one by one, as --enforce-eager and --disable-cuda-graph do (default: replay graphs)")
      .group(kDeploymentGroup);
  text("--phase", options.phase, "NAME", kWorkloadGroup,
       "decode (default), prefill, mixed, encode (default of models without a decoder), train");
  text("--load", options.load, "LOAD", kWorkloadGroup,
       "uniform (default; GPUs: log-normal:1), zipf:1.0, power-law:1.2, dirichlet:0.5, log-normal:1.05, "
       "histogram:3,1,1, trace:FILE "
       "(CSV layer,token,expert_0,... or JSON lines; gzip too)");
  text("--acceptance", options.acceptance, "P", kWorkloadGroup,
       "With --draft-tokens: how often a guess is right where those before it were, 0 to 1");
  text("--rows", options.rows, "N,N,...", kWorkloadGroup, "Exact rows of each expert of a layer, instead of --load");
  text("--seed", options.seed, "N", kWorkloadGroup, "Seed of a random load (default 1)");
  command.add_flag("--gated", options.gated, "Experts have gate and up matrices (default)").group(kLayerGroup);
  command.add_flag("--no-gated", options.no_gated, "Experts have two matrices").group(kLayerGroup);
  text("--activation", options.activation, "NAME", kLayerGroup, "silu (default), gelu, relu, relu-squared, identity");
  text("--capacity-factor", options.capacity_factor, "F", kLayerGroup, "Slots an expert = F T k / E (default none)");
  text("--overflow", options.overflow, "NAME", kLayerGroup, "drop (default) or next-best, where capacity is limited");
  command.add_flag("--pad", options.pad, "Compute empty slots too").group(kLayerGroup);
  add_training_options(command, options.training);
  add_offload_options(command, options.offload);
  add_mix_options(command, options.mix);
  add_text_option(command, "--without", options.without, "FACTOR,...",
                  "Remove all-to-all, memory-bandwidth, routing-overhead or imbalance");
  add_text_option(command, "--format", options.format, "FORMAT", "table (default), md, csv, json, jsonl");
  add_text_option(command, "--data", options.data, "FOLDER", "Data folder of moecast (models/zoo, hwprofiles)");
}

}  // namespace moecast
