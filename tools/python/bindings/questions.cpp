#include "tools/python/bindings/questions.h"

#include <mutex>

#include "models/core/error.h"
#include "tools/cli/query_options.h"

namespace moecast::python {
namespace {

/// Set once by the package, read by threads that hold no lock of Python's.
struct DataFolder {
  std::mutex mutex;
  std::string path;
};

DataFolder& guarded_folder() {
  static DataFolder folder;
  return folder;
}

}  // namespace

std::string data_folder() {
  DataFolder& folder = guarded_folder();
  const std::scoped_lock lock(folder.mutex);
  return folder.path;
}

void set_data_folder(const std::string& path) {
  DataFolder& folder = guarded_folder();
  const std::scoped_lock lock(folder.mutex);
  folder.path = path;
}

Setting make_setting(const std::string& hw, const std::string& backend, const std::string& dtype, std::int64_t threads,
                     const std::string& strategy) {
  return moecast::make_setting(find_data_folders(data_folder()), hw, backend, dtype, threads, strategy);
}

Workload make_workload(const std::string& phase, std::int64_t batch, std::int64_t context, std::int64_t prompt,
                       std::int64_t source, std::int64_t prefill_batch, std::int64_t prefix, std::int64_t copies,
                       const std::string& load, std::uint64_t seed, const std::vector<std::int64_t>& rows_per_expert) {
  Workload workload;
  const auto found = find_phase(phase);
  if (!found)
    throw UsageError("phase", "\"" + phase + "\" is not a phase", "write decode, prefill, mixed, encode or train");
  workload.phase = *found;
  require_size(batch, 1, "batch");
  require_size(context, 0, "context");
  require_size(prompt, 1, "prompt");
  require_size(source, 0, "source");
  require_size(prefill_batch, 0, "prefill_batch");
  require_size(prefix, 0, "prefix");
  require_size(copies, 1, "copies");
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
  for (const std::int64_t rows : rows_per_expert) require_size(rows, 0, "rows");
  workload.rows_per_expert = rows_per_expert;
  return workload;
}

}  // namespace moecast::python
