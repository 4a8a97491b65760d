#include "tools/python/bindings/questions.h"

#include "models/core/error.h"
#include "tools/cli/query_options.h"

namespace moecast::python {
namespace {

void at_least(std::int64_t value, std::int64_t low, const char* name) {
  if (value < low || value > (std::int64_t{1} << 24)) {
    throw UsageError(name, std::to_string(value) + " is out of range",
                     "expected " + std::to_string(low) + " to 16777216");
  }
}

}  // namespace

std::string& data_folder() {
  static std::string folder;
  return folder;
}

Setting make_setting(const std::string& hw, const std::string& backend, const std::string& dtype, std::int64_t threads,
                     const std::string& strategy) {
  Setting setting;
  setting.folders = find_data_folders(data_folder());
  setting.hardware = choose_hardware(hw, setting.folders);
  refuse_backend_typo(backend, setting.hardware);
  setting.deployment.backend = backend;
  if (!dtype.empty()) setting.deployment.dtype = parse_dtype_flag(dtype);
  if (threads != 0) at_least(threads, 1, "threads");
  setting.deployment.threads = threads != 0 ? static_cast<int>(threads) : setting.hardware.threads;
  if (!strategy.empty()) setting.deployment.strategy = parse_strategy(strategy);
  return setting;
}

Workload make_workload(const std::string& phase, std::int64_t batch, std::int64_t context, std::int64_t prompt,
                       std::int64_t source, std::int64_t prefill_batch, std::int64_t prefix, std::int64_t copies,
                       const std::string& load, std::uint64_t seed, const std::vector<std::int64_t>& rows_per_expert) {
  Workload workload;
  const auto found = find_phase(phase);
  if (!found)
    throw UsageError("phase", "\"" + phase + "\" is not a phase", "write decode, prefill, mixed, encode or train");
  workload.phase = *found;
  at_least(batch, 1, "batch");
  at_least(context, 0, "context");
  at_least(prompt, 1, "prompt");
  at_least(source, 0, "source");
  at_least(prefill_batch, 0, "prefill_batch");
  at_least(prefix, 0, "prefix");
  at_least(copies, 1, "copies");
  const bool prompts = workload.phase == Phase::prefill || workload.phase == Phase::mixed;
  if (prefix > 0 && !prompts) throw UsageError("prefix", "means nothing in this phase", "prefill and mixed have one");
  workload.batch = batch;
  workload.context = workload.phase == Phase::decode || workload.phase == Phase::mixed ? context : 0;
  workload.prompt = workload.phase == Phase::decode ? 1 : prompt;
  if (workload.phase == Phase::prefill) workload.context = prefix;
  if (workload.phase == Phase::mixed) workload.prefix = prefix;
  workload.source = source;
  workload.prefill_batch = workload.phase == Phase::mixed ? prefill_batch : 0;
  workload.copies = copies;
  workload.load = parse_load(load, seed);
  for (const std::int64_t rows : rows_per_expert) at_least(rows, 0, "rows");
  workload.rows_per_expert = rows_per_expert;
  return workload;
}

}  // namespace moecast::python
