#include "tools/loop/partial_profile.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "models/core/error.h"
#include "profiler/environment.h"
#include "profiler/timing/summary.h"
#include "tools/loop/machine_record.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

bool same_cpu(const Profile& a, const Profile& b) {
  const auto value = [](const Profile& p, const char* key) {
    const auto found = p.environment.find(key);
    return found == p.environment.end() ? std::string() : found->second;
  };
  return value(a, "cpu_model") == value(b, "cpu_model") && value(a, "isa") == value(b, "isa");
}

void must(const std::error_code& error, const std::string& path, const std::string& what) {
  if (error) throw DeviceError(path, what + ": " + error.message(), "is the disk full or the folder read-only?");
}

/// Samples of an unfinished run on this machine; those of another machine are removed.
std::vector<Measurement> kept_samples(const std::string& folder, const Profile& machine) {
  if (!fs::exists(folder + "/profile.json")) return {};
  try {
    if (same_cpu(read_profile(folder), machine)) return read_samples(folder);
  } catch (const InputError& error) {
    throw InputError(error.where(), error.problem(), "moecast profile --fresh starts anew");
  }
  std::error_code error;
  fs::remove_all(folder + "/samples", error);
  must(error, folder, "cannot be emptied");
  return {};
}

}  // namespace

PartialProfile::PartialProfile(const std::string& folder, const Profile& machine)
    : folder_(folder + ".partial"), machine_(machine) {
  kept_ = kept_samples(folder_, machine);
}

void PartialProfile::prepare() const { write_profile(folder_, machine_); }

std::vector<KernelPoint> PartialProfile::missing(const std::vector<KernelPoint>& wanted, std::size_t rounds) const {
  std::vector<KernelPoint> points;
  for (const KernelPoint& point : wanted) {
    const auto found =
        std::find_if(kept_.begin(), kept_.end(), [&](const Measurement& row) { return row.point == point; });
    if (found == kept_.end() || found->round_s.size() < rounds) points.push_back(point);
  }
  return points;
}

std::vector<Measurement> PartialProfile::with(const std::vector<Measurement>& fresh) const {
  std::vector<Measurement> all = kept_;
  for (const Measurement& row : fresh) {
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const Measurement& other) { return other.point == row.point; });
    if (found == all.end()) {
      all.push_back(row);
    } else {
      *found = merge(*found, row);
    }
  }
  return all;
}

void PartialProfile::save(const std::vector<Measurement>& fresh) const {
  write_profile(folder_, machine_);
  write_samples(folder_, with(fresh));
}

void check_profile_target(const std::string& folder) {
  for (const std::string& path : {folder, folder + ".old", folder + ".partial"}) {
    std::error_code ignored;
    if (!fs::exists(fs::symlink_status(path, ignored))) continue;
    if (!fs::is_directory(path, ignored)) {
      throw UsageError(path, "is there and is not a folder", "choose another --out");
    }
    for (const fs::directory_entry& entry : fs::directory_iterator(path, ignored)) {
      const std::string name = entry.path().filename().string();
      if (name == "profile.json" || name == "calibration.json" || name == "samples") continue;
      if (name.find(".json.tmp") != std::string::npos) continue;  // what a killed run left
      throw UsageError(path, "holds \"" + name + "\", which a new profile would replace",
                       "choose another --out, or move it away");
    }
  }
}

void publish_profile(const std::string& partial, const std::string& folder) {
  std::error_code error;
  const std::string old = folder + ".old";
  fs::remove_all(old, error);
  must(error, old, "cannot be removed");
  const bool replaces = fs::exists(folder);
  if (replaces) {
    fs::rename(folder, old, error);
    must(error, folder, "cannot be moved aside");
  }
  fs::rename(partial, folder, error);
  if (error && replaces) {
    std::error_code ignored;
    fs::rename(old, folder, ignored);
  }
  must(error, folder, "cannot be written");
  fs::remove_all(old, error);
}

}  // namespace moecast
