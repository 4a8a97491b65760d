#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/architecture/huggingface.h"
#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

/// Python writes Infinity and NaN, which are no JSON; configurations with them load as if they said null.
std::string without_infinities(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\' && i + 1 < text.size()) {
      clean += c;
      clean += text[++i];
      continue;
    }
    if (c == '"') quoted = !quoted;
    bool replaced = false;
    for (const std::string_view word : {"-Infinity", "Infinity", "NaN"}) {
      if (quoted || replaced || text.substr(i, word.size()) != word) continue;
      clean += "null";
      i += word.size() - 1;
      replaced = true;
    }
    if (!replaced) clean += c;
  }
  return clean;
}

}  // namespace

Architecture load_architecture_text(std::string_view text, const std::string& where, const std::string& name) {
  const Json json = parse_json(without_infinities(text), where);
  const JsonView view(json, where);
  if (looks_like_own_schema(view)) {
    Architecture architecture = read_architecture(view);
    if (architecture.name.empty()) architecture.name = name;
    return architecture;
  }
  if (looks_like_huggingface(view)) return import_huggingface(view, name);
  throw InputError(where, "is not a model",
                   "a Hugging Face config.json has \"model_type\" and \"hidden_size\"; an own description starts with "
                   "\"moecast_architecture\": 1, see models/README.md");
}

Architecture load_architecture(const std::string& path) {
  const std::filesystem::path file(path);
  // .../some-model/config.json is called after its folder.
  const bool generic = file.filename() == "config.json" && file.has_parent_path();
  const std::string name = generic ? file.parent_path().filename().string() : file.stem().string();
  return load_architecture_text(read_text_file(path), path, name);
}

}  // namespace moecast
