#pragma once
#include <memory>
#include <string>
#include <vector>

#include "models/core/dtype.h"
#include "sim/predictor.h"
#include "tools/cli/data_folders.h"

namespace moecast {

/// The profile that --hw means.
struct HardwareChoice {
  std::string folder;
  int threads = 1;  ///< most threads that its backend was profiled with
  bool this_machine = false;
  bool gpu = false;                     ///< kernels of a GPU, whose steps a serving engine runs
  std::vector<std::string> backends{};  ///< that it was profiled with
  std::vector<DType> dtypes{};          ///< that it was profiled in, one a backend
};

/// `this-machine`: the newest profile made here; a name of `list hw`; or a folder.
/// @throws InputError when nothing was profiled here, or the newest profile is of another CPU; UsageError on a typo.
HardwareChoice choose_hardware(const std::string& name, const DataFolders& folders);

/// Predictor of the profile. @throws InputError when its files cannot be read.
std::unique_ptr<Predictor> load_predictor(const HardwareChoice& hardware, const DataFolders& folders);

/// @throws UsageError for a backend that the profile lacks and that looks like a typo of one that it has. Others are
/// answered as outside of its range.
void refuse_backend_typo(const std::string& backend, const HardwareChoice& hardware);

}  // namespace moecast
