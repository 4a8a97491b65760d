#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"
#include "sim/predictor.h"
#include "tools/cli/data_folders.h"
#include "tools/cli/mix_options.h"
#include "tools/cli/offload_options.h"
#include "tools/cli/training_options.h"

namespace moecast {

class Command;

/// What was typed after `predict` and `explain`, as text; numeric flags may be ranges.
struct QueryOptions {
  std::string model;
  std::string hw = "this-machine";
  std::string data;
  std::string format = "table";
  std::string backend;
  std::string strategy;
  std::string dtype;
  std::string phase;
  std::string load;
  std::string rows;
  std::string seed = "1";
  std::string acceptance;
  std::string capacity_factor;
  std::string overflow;
  std::string activation;
  std::string without;
  OffloadFlags offload;
  MixFlags mix;
  bool gated = false;
  bool no_gated = false;
  bool pad = false;
  bool eager = false;
  std::string kv_dtype;
  std::string all_reduce;
  TrainingFlags training;
  std::map<std::string, std::string> numbers;  ///< "--batch" -> "1,8,64"; empty = not given
};

/// A value that an answer was made with.
struct InputValue {
  std::string name;  ///< key in the JSON contract, with its unit
  std::variant<std::monostate, std::int64_t, double, bool, std::string, std::vector<std::int64_t>> value;
  bool given = false;  ///< typed; false = a default
};

/// One combination of the ranges.
struct Query {
  Architecture architecture;
  Deployment deployment;
  Workload workload;
  Without without;
  std::vector<InputValue> inputs;              ///< everything that was used, defaults included
  std::map<std::string, std::int64_t> varied;  ///< flags that were ranges -> value of this combination
};

/// Adds all flags of a query to a command.
void add_query_options(const Command& command, QueryOptions& options);

/// Neither a model nor a layer is asked about.
bool asks_nothing(const QueryOptions& options);

/// The model that is asked about; nullptr where the flags describe a single layer.
/// @throws UsageError when both or neither are asked about, InputError on a bad model file.
std::shared_ptr<const Architecture> asked_model(const QueryOptions& options, const DataFolders& folders);

/// Takes away the numeric flags that mean nothing in a phase, or to a model, that was chosen after they were typed.
/// @param phase  empty = the model's. @param model  nullptr = not known. @throws UsageError for a phase that is none.
void drop_idle_numbers(QueryOptions& options, const std::string& phase, const Architecture* model);

/// The combinations of the ranges of some flags, in the order of the help, the last flag fastest. Each is made when it
/// is asked for, so that millions take no memory; threads may share a set.
class QuerySet {
 public:
  /// @param model            nullptr for a single layer.
  /// @param default_threads  used where --threads is not given.
  /// @param most             combinations.
  /// @throws UsageError on contradicting or wrong flags, and on more combinations than `most`.
  QuerySet(QueryOptions options, std::shared_ptr<const Architecture> model, int default_threads, std::size_t most);

  [[nodiscard]] std::size_t size() const { return size_; }
  /// @throws UsageError where numbers contradict each other: more experts a token than there are.
  [[nodiscard]] Query at(std::size_t index) const;
  /// Key in the JSON contract and value of each flag that is a range.
  [[nodiscard]] std::vector<std::pair<std::string, std::int64_t>> varied(std::size_t index) const;

 private:
  QueryOptions options_;
  std::shared_ptr<const Architecture> model_;
  int default_threads_;
  ExpertLoad load_;
  std::vector<std::vector<std::int64_t>> axes_;  ///< a numeric flag each; empty = not given
  std::size_t size_ = 1;
};

/// All combinations at once, at most a million.
/// @param default_threads  used where --threads is not given.
/// @throws UsageError on contradicting or wrong flags, InputError on a bad model file.
std::vector<Query> make_queries(const QueryOptions& options, const DataFolders& folders, int default_threads);

/// "zipf:1.0", "uniform", "histogram:3,1,1", "trace:FILE" (read here). @throws UsageError with the known forms,
/// InputError on a bad file.
ExpertLoad parse_load(const std::string& text, std::uint64_t seed);
/// "sorted-grouped", "grouped", "loop", ... @throws UsageError with the nearest name.
KernelStrategy parse_strategy(const std::string& text);
std::string strategy_name(KernelStrategy strategy);
/// @throws UsageError with the nearest name.
inline constexpr const char* kAllReduceHelp =
    "GPUs: whose all-reduce, which adds the residual and norms, runs inside a node: trtllm is FlashInfer's, which vLLM "
    "and SGLang can fuse (default: the engine's own)";
/// A framework of whom all-reduces were measured; empty stays so. @throws UsageError
std::string parse_all_reduce(const std::string& text, const std::string& flag = "--all-reduce");
DType parse_dtype_flag(const std::string& text, const std::string& flag = "--dtype");
/// "all-to-all,memory-bandwidth,routing-overhead,imbalance". @throws UsageError with the nearest name.
Without parse_without(const std::string& text);

}  // namespace moecast
