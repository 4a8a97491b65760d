#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"
#include "sim/predictor.h"
#include "tools/cli/data_folders.h"

namespace CLI {
class App;
}

namespace moecast {

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
  std::string capacity_factor;
  std::string overflow;
  std::string activation;
  std::string without;
  bool gated = false;
  bool no_gated = false;
  bool pad = false;
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
void add_query_options(CLI::App& command, QueryOptions& options);

/// Neither a model nor a layer is asked about.
bool asks_nothing(const QueryOptions& options);

/// All combinations, in the order typed, the last flag fastest.
/// @param default_threads  used where --threads is not given.
/// @throws UsageError on contradicting or wrong flags, InputError on a bad model file.
std::vector<Query> make_queries(const QueryOptions& options, const DataFolders& folders, int default_threads);

/// "zipf:1.0", "uniform", "histogram:3,1,1". @throws UsageError with the known forms.
ExpertLoad parse_load(const std::string& text, std::uint64_t seed);
/// "sorted-grouped", "grouped", "loop", ... @throws UsageError with the nearest name.
KernelStrategy parse_strategy(const std::string& text);
std::string strategy_name(KernelStrategy strategy);
/// @throws UsageError with the nearest name.
DType parse_dtype_flag(const std::string& text);
/// "all-to-all,memory-bandwidth,routing-overhead,imbalance". @throws UsageError with the nearest name.
Without parse_without(const std::string& text);

}  // namespace moecast
