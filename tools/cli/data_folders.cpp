#include "tools/cli/data_folders.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "models/core/error.h"
#include "models/core/json.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

bool holds_data(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_directory(folder / "models" / "zoo", ignored);
}

fs::path program_folder() {
  std::error_code failed;
  const fs::path program = fs::read_symlink("/proc/self/exe", failed);
  return failed ? fs::path() : program.parent_path();
}

/// Folder of the file that this code was loaded from: libmoecast.so, a Python module, or the program.
fs::path code_folder() {
  static const char here = 0;
  Dl_info info{};
  if (dladdr(&here, &info) == 0 || info.dli_fname == nullptr) return {};
  const fs::path file = info.dli_fname;
  return file.has_parent_path() ? file.parent_path() : fs::path();  // a program may be known by its bare name
}

fs::path data_root(const std::string& flag) {
  for (const auto& [folder, origin] :
       std::array{std::pair{flag, "--data"}, std::pair{environment("MOECAST_DATA"), "MOECAST_DATA"}}) {
    if (folder.empty()) continue;
    if (!holds_data(folder)) {
      throw UsageError(origin, fmt::format("\"{}\" holds no data of moecast", folder), "it must contain models/zoo");
    }
    return folder;
  }
  for (const fs::path& folder : {code_folder(), program_folder()}) {
    const fs::path beside = folder.parent_path() / "share" / "moecast";
    if (!folder.empty() && holds_data(beside)) return beside;
  }
  return MOECAST_SOURCE_DIR;
}

fs::path own_profiles() {
  if (const std::string folder = environment("MOECAST_PROFILES"); !folder.empty()) return folder;
  if (const std::string folder = environment("XDG_DATA_HOME"); !folder.empty()) {
    return fs::path(folder) / "moecast" / "profiles";
  }
  const std::string home = environment("HOME");
  return fs::path(home.empty() ? "/tmp" : home) / ".local" / "share" / "moecast" / "profiles";
}

struct Found {
  ProfileEntry entry;
  fs::file_time_type changed;
};

std::vector<Found> profiles_in(const std::string& folder, bool own) {
  std::vector<Found> found;
  std::error_code failed;
  for (const auto& item : fs::directory_iterator(folder, failed)) {
    std::error_code ignored;
    const fs::path file = item.path() / "profile.json";
    const std::string name = item.path().filename().string();
    const bool working = name.starts_with('.') || name.ends_with(".partial") || name.ends_with(".old");
    if (working || !fs::is_regular_file(file, ignored)) continue;
    found.push_back({{name, item.path().string(), own}, fs::last_write_time(file, ignored)});
  }
  return found;
}

}  // namespace

DataFolders find_data_folders(const std::string& flag) {
  const fs::path root = data_root(flag);
  return {(root / "models" / "zoo").string(), (root / "hwprofiles").string(),
          (root / "models" / "plan" / "engines").string(), (root / "models" / "systems").string(),
          own_profiles().string()};
}

std::vector<ProfileEntry> find_profiles(const DataFolders& folders) {
  std::vector<Found> own = profiles_in(folders.own, true);
  std::vector<Found> shipped = profiles_in(folders.shipped, false);
  std::sort(own.begin(), own.end(), [](const Found& a, const Found& b) {
    return a.changed != b.changed ? a.changed > b.changed : a.entry.name < b.entry.name;
  });
  std::sort(shipped.begin(), shipped.end(), [](const Found& a, const Found& b) { return a.entry.name < b.entry.name; });
  std::vector<ProfileEntry> entries;
  for (Found& found : own) entries.push_back(std::move(found.entry));
  for (Found& found : shipped) entries.push_back(std::move(found.entry));
  return entries;
}

std::string profile_folder(const DataFolders& folders, const std::string& name) {
  std::error_code ignored;
  if (name.find('/') != std::string::npos || name == "." ||
      fs::is_regular_file(fs::path(name) / "profile.json", ignored)) {
    fs::path folder = name;
    if (folder.filename() == "profile.json") folder = folder.parent_path();
    if (!fs::is_directory(folder, ignored))
      throw InputError(name, "no such profile folder", "moecast list hw shows the known ones");
    if (!fs::is_regular_file(folder / "profile.json", ignored)) {
      throw InputError(name, "has no profile.json", "name the folder that moecast profile wrote");
    }
    return folder.string();
  }
  const std::vector<ProfileEntry> entries = find_profiles(folders);
  std::vector<std::string_view> names{"this-machine"};
  for (const ProfileEntry& entry : entries) {
    if (entry.name == name) return entry.folder;
    names.emplace_back(entry.name);
  }
  const auto near = nearest_name(name, names);
  throw UsageError("--hw", fmt::format("\"{}\" is no known profile", name),
                   near ? fmt::format("did you mean \"{}\"?", *near)
                        : "moecast list hw shows the known ones; moecast profile measures this machine");
}

}  // namespace moecast
