#include "tools/cli/setting.h"

#include "models/core/error.h"
#include "tools/cli/query_numbers.h"
#include "tools/cli/query_options.h"

namespace moecast {

void require_size(std::int64_t value, std::int64_t low, const char* name) {
  if (value < low || value > kMaxSize) {
    throw UsageError(name, std::to_string(value) + " is out of range",
                     "expected " + std::to_string(low) + " to " + std::to_string(kMaxSize));
  }
}

Setting make_setting(const DataFolders& folders, const std::string& hw, const std::string& backend,
                     const std::string& dtype, std::int64_t threads, const std::string& strategy) {
  Setting setting;
  setting.folders = folders;
  setting.hardware = choose_hardware(hw, folders);
  refuse_backend_typo(backend, setting.hardware);
  setting.deployment.backend = backend;
  if (!dtype.empty()) setting.deployment.dtype = parse_dtype_flag(dtype);
  if (threads != 0) require_size(threads, 1, "threads");
  setting.deployment.threads = threads != 0 ? static_cast<int>(threads) : setting.hardware.threads;
  if (!strategy.empty()) setting.deployment.strategy = parse_strategy(strategy);
  return setting;
}

}  // namespace moecast
