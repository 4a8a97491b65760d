#include "tools/cli/hardware_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "hwprofiles/profile.h"
#include "models/core/error.h"
#include "models/core/json.h"
#include "profiler/environment.h"
#include "sim/step/gpu_predictor.h"
#include "tools/loop/machine_record.h"

namespace moecast {
namespace {

/// Folder of the newest own profile of a CPU. @throws InputError when there is none.
std::string newest_own_profile(const DataFolders& folders) {
  for (const ProfileEntry& entry : find_profiles(folders)) {
    if (entry.own && read_profile(entry.folder).device == "cpu") return entry.folder;
  }
  throw InputError("--hw this-machine", fmt::format("no profile in {}", folders.own),
                   "moecast profile measures this machine; moecast list hw shows what ships");
}

}  // namespace

HardwareChoice choose_hardware(const std::string& name, const DataFolders& folders) {
  HardwareChoice choice;
  choice.this_machine = name == "this-machine";
  choice.folder = choice.this_machine ? newest_own_profile(folders) : profile_folder(folders, name);
  const Profile profile = read_profile(choice.folder);
  std::error_code ignored;
  if (profile.device == "gpu" && !std::filesystem::exists(choice.folder + "/calibration.json", ignored)) {
    choice.gpu = true;
    return choice;
  }
  choice.threads = profiled_threads(profile).back();
  for (const ProfileBackend& backend : profile.backends) {
    choice.backends.push_back(backend.name);
    choice.dtypes.push_back(backend.dtype);
  }
  if (!choice.this_machine) return choice;
  const Environment machine = read_environment();
  if (!recorded_on(profile, machine)) {
    const auto cpu = profile.environment.find("cpu_model");
    throw InputError(choice.folder,
                     fmt::format("was measured on another CPU ({}), this one is {}",
                                 cpu == profile.environment.end() ? "unknown" : cpu->second,
                                 machine.cpu_model.empty() ? "unknown" : machine.cpu_model),
                     "moecast profile measures this machine; --hw FOLDER uses that profile all the same");
  }
  return choice;
}

std::unique_ptr<Predictor> load_predictor(const HardwareChoice& hardware, const DataFolders& folders) {
  return hardware.gpu ? load_gpu_predictor(hardware.folder, folders.engines) : Predictor::load(hardware.folder);
}

void refuse_backend_typo(const std::string& backend, const HardwareChoice& hardware) {
  const std::vector<std::string>& known = hardware.backends;
  if (backend.empty() || std::find(known.begin(), known.end(), backend) != known.end()) return;
  const auto near = nearest_name(backend, {known.begin(), known.end()});
  if (!near) return;
  throw UsageError("--backend", fmt::format("\"{}\" is not in the profile", backend),
                   fmt::format("did you mean \"{}\"?", *near));
}

}  // namespace moecast
