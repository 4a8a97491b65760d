#pragma once
#include <optional>
#include <string>
#include <vector>

namespace moecast {

/// Where the files are that this program reads and writes.
struct DataFolders {
  std::string zoo;      ///< models/zoo of the data folder
  std::string shipped;  ///< hwprofiles of the data folder
  std::string engines;  ///< models/plan/engines of the data folder
  std::string systems;  ///< models/systems of the data folder
  std::string own;      ///< profiles made on this machine; may not exist yet
};

/// Data: `flag`, else $MOECAST_DATA, else ../share/moecast beside the library or the program, else the source tree that
/// they were built from.
/// Own profiles: $MOECAST_PROFILES, else $XDG_DATA_HOME/moecast/profiles, else ~/.local/share/moecast/profiles.
/// @throws UsageError when a folder that was asked for has no models/zoo.
DataFolders find_data_folders(const std::string& flag);

/// A profile that `list hw` shows and --hw accepts.
struct ProfileEntry {
  std::string name;
  std::string folder;
  bool own = false;  ///< made here by `moecast profile`
};

/// Own profiles, newest first, then shipped ones by name.
std::vector<ProfileEntry> find_profiles(const DataFolders& folders);

/// A folder with profile.json, or the name of a known profile. "this-machine" is not handled here.
/// @throws InputError with the nearest name.
std::string profile_folder(const DataFolders& folders, const std::string& name);

}  // namespace moecast
