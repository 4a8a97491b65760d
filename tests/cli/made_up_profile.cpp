#include "tests/cli/made_up_profile.h"

#include <stdexcept>

#include "hwprofiles/profile.h"
#include "models/core/file.h"
#include "sim/cost/calibration.h"
#include "tests/cli/program.h"
#include "tests/support/synthetic_calibration.h"

namespace moecast::test {

std::string made_up_profile(const std::string& name) {
  std::string folder = fresh_folder(name);
  Profile profile = synthetic_profile();
  profile.backends.resize(1);
  profile.backends.front().library = "made up";
  HardwareQuantity capacity;
  capacity.value = 25e9;
  capacity.unit = "B";
  capacity.origin = Origin::measured;
  capacity.source = "made up";
  profile.quantities["memory_capacity"] = capacity;
  std::vector<Measurement> rows = synthetic_stages(DType::fp32, 1, 20, 3);
  for (Measurement& row : synthetic_gemms("onednn", DType::fp32, 1, 40, 7)) rows.push_back(std::move(row));
  write_profile(folder, profile);
  write_samples(folder, rows);
  write_file_atomically(folder + "/calibration.json", calibration_text(calibrate(profile, rows)));
  return folder;
}

std::string read_whole(const std::string& path) { return read_text_file(path); }

void replace_in_file(const std::string& path, const std::string& from, const std::string& to) {
  std::string text = read_text_file(path);
  const std::size_t at = text.find(from);
  if (at == std::string::npos) throw std::runtime_error(path + " does not hold " + from);
  write_file_atomically(path, text.replace(at, from.size(), to));
}

}  // namespace moecast::test
