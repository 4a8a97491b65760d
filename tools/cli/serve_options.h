#pragma once
#include <string>

namespace moecast {

class Command;

/// What was typed after `serve`, as text.
struct ServeOptions {
  std::string model, hw, backend = "vllm", dtype, kv_dtype, all_reduce;
  std::string tp = "1", ep = "1", dp = "1", pp = "1", cp = "1", moe_tp;
  std::string draft_tokens = "0", acceptance;
  std::string instances, prefill_instances, decode_instances, kv_link;
  std::string rate, arrivals, concurrency, requests, warmup, urgent;
  std::string max_context, prompt, output, range_ratio = "0", shared_prefix, seed = "1";
  std::string batched_tokens = "8192", sequences = "1024", block = "16", memory_ratio = "0.9";
  std::string load = "log-normal:1", step_law = "service";
  std::string ttft, tpot, price, front;
  std::string data, format = "table";
  bool explain = false, eager = false;
};

/// Adds all flags of `serve` to a command.
void add_serve_options(const Command& command, ServeOptions& options);

}  // namespace moecast
