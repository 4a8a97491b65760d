#pragma once
#include <string>
#include <vector>

#include "hwprofiles/profile.h"

namespace moecast {

/// What an unfinished profiling run keeps in FOLDER.partial, so that the next one goes on from there.
class PartialProfile {
 public:
  /// Reads what is there. Measurements of another CPU are not used; a broken folder is an InputError that names it.
  PartialProfile(const std::string& folder, const Profile& machine);

  [[nodiscard]] const std::vector<Measurement>& kept() const { return kept_; }
  [[nodiscard]] const std::string& folder() const { return folder_; }
  /// Points of `wanted` that have fewer than `rounds` rounds so far.
  [[nodiscard]] std::vector<KernelPoint> missing(const std::vector<KernelPoint>& wanted, std::size_t rounds) const;
  /// What is kept, merged with new measurements.
  [[nodiscard]] std::vector<Measurement> with(const std::vector<Measurement>& fresh) const;
  /// Writes what the machine is, so that a folder that cannot be written is found out before anything is measured.
  /// @throws DeviceError
  void prepare() const;
  /// Writes the merged measurements. @throws DeviceError on a full disk; what was there stays.
  void save(const std::vector<Measurement>& fresh) const;
  /// Takes new measurements over for good.
  void keep(const std::vector<Measurement>& fresh) { kept_ = with(fresh); }

 private:
  std::string folder_;
  Profile machine_;
  std::vector<Measurement> kept_;
};

/// A finished profile replaces its folder as a whole, so the folder must hold nothing else.
/// @throws UsageError at `folder` when it is a file, or a folder with anything that is not part of a profile.
void check_profile_target(const std::string& folder);

/// Moves a complete profile from FOLDER.partial to FOLDER. What FOLDER held is replaced only when the new one is whole.
/// @throws DeviceError when the file system refuses; nothing is lost then.
void publish_profile(const std::string& partial, const std::string& folder);

}  // namespace moecast
