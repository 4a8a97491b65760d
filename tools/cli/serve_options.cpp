#include "tools/cli/serve_options.h"

#include "tools/cli/command.h"
#include "tools/cli/query_options.h"

namespace moecast {
namespace {

void add_deployment_options(const Command& command, ServeOptions& options) {
  add_text_option(command, "--model", options.model, "NAME|FILE", "model: a name of `list models` or a config.json");
  add_text_option(command, "--hw", options.hw, "NAME", "GPU: a name of `list hw`, or a folder");
  add_text_option(command, "--backend", options.backend, "ENGINE", "vllm (default), sglang, trtllm");
  add_text_option(command, "--dtype", options.dtype, "FORMAT", "of the weights (default: the model's)");
  add_text_option(command, "--kv-dtype", options.kv_dtype, "FORMAT",
                  "of the KV cache (default: the model's, else that of activations)");
  add_text_option(command, "--all-reduce", options.all_reduce, "ENGINE", kAllReduceHelp);
  add_text_option(command, "--tp", options.tp, "RANKS", "tensor-parallel ranks of an instance (default 1)");
  add_text_option(command, "--ep", options.ep, "RANKS", "expert-parallel ranks (default 1)");
  add_text_option(command, "--dp", options.dp, "RANKS", "data-parallel ranks of attention (default 1)");
  add_text_option(command, "--pp", options.pp, "STAGES", "pipeline stages of an instance (default 1)");
  add_text_option(command, "--cp", options.cp, "RANKS", "context-parallel ranks (default 1)");
  add_text_option(command, "--moe-tp", options.moe_tp, "RANKS",
                  "ranks that share an expert (default tp x dp x cp / ep)");
  command.add_flag(
      "--eager", options.eager,
      "launch kernels one by one, as --enforce-eager and --disable-cuda-graph do (default: replay graphs)");
  add_text_option(command, "--draft-tokens", options.draft_tokens, "COUNT",
                  "that the model's layers of multi-token prediction guess ahead of each step (default 0)");
  add_text_option(command, "--acceptance", options.acceptance, "P",
                  "how often a guess is right where those before it were, 0 to 1");
  add_text_option(command, "--instances", options.instances, "COUNT", "instances that share the requests (default 1)");
  add_text_option(command, "--prefill-instances", options.prefill_instances, "COUNT",
                  "instances that only compute prompts");
  add_text_option(command, "--decode-instances", options.decode_instances, "COUNT", "instances that go on from there");
  add_text_option(command, "--kv-link", options.kv_link, "RATE", "link between the two, e.g. 50GB/s");
  add_text_option(command, "--max-batched-tokens", options.batched_tokens, "COUNT",
                  "tokens of a step and rank: decodes and chunks of prompts (default 8192)");
  add_text_option(command, "--max-sequences", options.sequences, "COUNT", "sequences in a rank's batch (default 1024)");
  add_text_option(command, "--kv-block", options.block, "TOKENS", "of a block of the cache (default 16)");
  add_text_option(command, "--memory-ratio", options.memory_ratio, "RATIO",
                  "that the engine uses of the GPU's memory (trtllm: of what weights leave free; default 0.9)");
  add_text_option(command, "--front-end", options.front, "TIME",
                  "of a request outside of steps before its first token (default: as measured services)");
  add_text_option(command, "--step-law", options.step_law, "LAW",
                  "cost of a step beyond kernels: service (default), as measured services, or host, as logged steps");
  add_text_option(command, "--load", options.load, "LOAD", "popularity of experts (default log-normal:1)");
}

}  // namespace

void add_serve_options(const Command& command, ServeOptions& options) {
  add_text_option(command, "--rate", options.rate, "RATES", "requests a second that arrive at random, e.g. 8 or 2,4,8");
  add_text_option(command, "--concurrency", options.concurrency, "RANGE",
                  "instead: clients that send the next request when one ends");
  add_text_option(command, "--arrivals", options.arrivals, "FILE",
                  "instead: CSV with the columns arrival_s, prompt_tokens, output_tokens");
  add_text_option(command, "--requests", options.requests, "COUNT", "to simulate (default: enough for the load)");
  add_text_option(command, "--warmup", options.warmup, "COUNT",
                  "first requests that latencies leave out (default: a fifth; none of --arrivals)");
  add_text_option(command, "--urgent", options.urgent, "SHARE",
                  "of the requests, drawn at random, that go before the others (default 0)");
  add_text_option(command, "--prompt", options.prompt, "COUNT", "tokens of a prompt (default 1024)");
  add_text_option(command, "--output", options.output, "COUNT", "tokens generated for it (default 256)");
  add_text_option(
      command, "--range-ratio", options.range_ratio, "RATIO",
      "lengths are drawn evenly between 1 - RATIO and 1 + RATIO of --prompt and --output (default 0: equal)");
  add_text_option(command, "--max-context", options.max_context, "COUNT",
                  "tokens that a sequence may have, where the model was stretched (default: what it is made for)");
  add_text_option(command, "--shared-prefix", options.shared_prefix, "COUNT",
                  "tokens that all prompts begin with, computed and cached once (default 0)");
  add_text_option(command, "--seed", options.seed, "SEED", "of the arrivals (default 1)");
  add_deployment_options(command, options);
  add_text_option(command, "--ttft", options.ttft, "TIME", "goal: time to the first token, e.g. 1s");
  add_text_option(command, "--tpot", options.tpot, "TIME", "goal: time of an output token, e.g. 20ms");
  add_text_option(command, "--price", options.price, "PRICE", "of a GPU and hour: cost of a million output tokens");
  command.add_flag("--explain", options.explain,
                   "also where a request's time goes, and what would help: simulated again with one thing changed");
  add_text_option(command, "--data", options.data, "FOLDER", "data folder (default: beside the program)");
  add_text_option(command, "--format", options.format, "FORMAT", "table (default), md, csv, json, jsonl");
}

}  // namespace moecast
