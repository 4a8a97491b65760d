#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {

Architecture load_architecture_text(std::string_view text, const std::string& where, const std::string& name) {
  const Json json = parse_json(text, where);
  const JsonView view(json, where);
  if (looks_like_own_schema(view)) {
    Architecture architecture = read_architecture(view);
    if (architecture.name.empty()) architecture.name = name;
    return architecture;
  }
  throw InputError(where, "is not a model",
                   "an own description starts with \"moecast_architecture\": 1, see models/README.md");
}

Architecture load_architecture(const std::string& path) {
  const std::filesystem::path file(path);
  // .../some-model/config.json is called after its folder.
  const bool generic = file.filename() == "config.json" && file.has_parent_path();
  const std::string name = generic ? file.parent_path().filename().string() : file.stem().string();
  return load_architecture_text(read_text_file(path), path, name);
}

}  // namespace moecast
