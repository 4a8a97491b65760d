#include <fmt/format.h>

#include <array>
#include <memory>
#include <utility>

#include "models/core/error.h"
#include "models/core/framework.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"
#include "models/routing/routing_trace.h"
#include "tools/cli/command.h"
#include "tools/cli/query_options.h"

namespace moecast {
namespace {

template <class T>
using Words = std::vector<std::pair<std::string_view, T>>;

/// The value of a word; underscores count as dashes. @throws UsageError with the nearest word, else all of them.
template <class T>
T value_of(const Words<T>& words, std::string text, const std::string& where, const std::string& kind) {
  const std::string typed = text;
  for (char& c : text) c = c == '_' ? '-' : c;
  std::vector<std::string_view> names;
  for (const auto& [name, value] : words) {
    if (name == text) return value;
    names.push_back(name);
  }
  const auto near = nearest_name(text, names);
  throw UsageError(
      where, fmt::format("\"{}\" is not {}", typed, kind),
      near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("write one of: {}", fmt::join(names, ", ")));
}

}  // namespace

KernelStrategy parse_strategy(const std::string& text) {
  static const Words<KernelStrategy> words{
      {"sorted-grouped", KernelStrategy::sorted_grouped},   {"grouped", KernelStrategy::sorted_grouped},
      {"per-expert-loop", KernelStrategy::per_expert_loop}, {"loop", KernelStrategy::per_expert_loop},
      {"capacity-padded", KernelStrategy::capacity_padded}, {"padded", KernelStrategy::capacity_padded},
      {"dense-mask", KernelStrategy::dense_mask},           {"dense", KernelStrategy::dense_mask}};
  return value_of(words, text, "--strategy", "a kernel strategy");
}

std::string strategy_name(KernelStrategy strategy) {
  switch (strategy) {
    case KernelStrategy::per_expert_loop: return "per-expert-loop";
    case KernelStrategy::sorted_grouped: return "sorted-grouped";
    case KernelStrategy::capacity_padded: return "capacity-padded";
    case KernelStrategy::dense_mask: return "dense-mask";
  }
  return "unknown";
}

std::string parse_all_reduce(const std::string& text, const std::string& flag) {
  try {
    return text.empty() ? text : framework_named(text, flag);
  } catch (const InputError& error) {
    throw UsageError(flag, error.problem(), error.hint());
  }
}

DType parse_dtype_flag(const std::string& text, const std::string& flag) {
  if (const auto dtype = parse_dtype(text)) return *dtype;
  static const std::vector<std::string_view> names{"fp32",  "bf16", "fp16", "fp8",   "fp8_block",
                                                   "mxfp8", "int8", "int4", "mxfp4", "nvfp4"};
  const auto near = nearest_name(text, names);
  throw UsageError(
      flag, fmt::format("\"{}\" is not a number format", text),
      near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("write one of: {}", fmt::join(names, ", ")));
}

ExpertLoad parse_load(const std::string& text, std::uint64_t seed) {
  static const Words<LoadKind> words{{"uniform", LoadKind::uniform},
                                     {"zipf", LoadKind::zipf},
                                     {"power-law", LoadKind::power_law},
                                     {"dirichlet", LoadKind::dirichlet},
                                     {"log-normal", LoadKind::log_normal},
                                     {"histogram", LoadKind::histogram},
                                     {"trace", LoadKind::trace}};
  const std::size_t colon = text.find(':');
  const std::string argument = colon == std::string::npos ? "" : text.substr(colon + 1);
  ExpertLoad load;
  load.seed = seed;
  load.kind = value_of(words, text.substr(0, colon), "--load", "a load");
  if (load.kind == LoadKind::uniform) {
    if (!argument.empty()) throw UsageError("--load", "uniform takes no parameter", "write \"uniform\"");
    return load;
  }
  if (argument.empty()) {
    throw UsageError("--load", fmt::format("\"{}\" needs a parameter", text),
                     load.kind == LoadKind::histogram ? "write e.g. \"histogram:3,1,1\""
                     : load.kind == LoadKind::trace   ? "write e.g. \"trace:routing.csv.gz\""
                                                      : "write e.g. \"zipf:1.0\"");
  }
  if (load.kind == LoadKind::trace) {
    load.trace = std::make_shared<const RoutingTrace>(read_routing_trace(argument));
    return load;
  }
  if (load.kind != LoadKind::histogram) {
    load.parameter = parse_number(argument, "--load", 0, 100);
    return load;
  }
  for (const std::string& weight : split_list(argument, "--load")) {
    load.histogram.push_back(parse_number(weight, "--load", 0));
  }
  return load;
}

Without parse_without(const std::string& text) {
  static const Words<bool Without::*> words{{"all-to-all", &Without::all_to_all},
                                            {"memory-bandwidth", &Without::memory_bandwidth},
                                            {"routing-overhead", &Without::routing_overhead},
                                            {"imbalance", &Without::expert_imbalance}};
  Without without;
  if (text.empty()) return without;
  for (const std::string& word : split_list(text, "--without")) {
    without.*value_of(words, word, "--without", "a factor that can be removed") = true;
  }
  return without;
}

}  // namespace moecast
