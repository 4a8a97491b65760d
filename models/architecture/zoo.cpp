#include "models/architecture/zoo.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "models/architecture/reader.h"
#include "models/core/error.h"

namespace moecast {

namespace fs = std::filesystem;

std::vector<std::string> zoo_names(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code failed;
  for (const auto& item : fs::directory_iterator(folder, failed)) {
    if (item.path().extension() == ".json") names.push_back(item.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Architecture load_zoo(const std::string& folder, const std::string& name) {
  const std::vector<std::string> names = zoo_names(folder);
  if (!std::binary_search(names.begin(), names.end(), name)) {
    const auto near = nearest_name(name, {names.begin(), names.end()});
    throw InputError(folder, "holds no model \"" + name + "\"",
                     near ? "did you mean \"" + *near + "\"?" : std::string());
  }
  return load_architecture((fs::path(folder) / (name + ".json")).string());
}

}  // namespace moecast
