#pragma once
#include <string>
#include <string_view>

#include "models/architecture/architecture.h"
#include "models/core/json.h"

namespace moecast {

/// A model of the own schema (architecture.schema.json). Layers are runs: {"repeat": n, "blocks": [...]}, where a block
/// is an object or the name of one in the top-level "blocks", or {"repeat": n, "layers": [runs]}.
/// @throws InputError naming file and JSON pointer on unknown fields, wrong types, and sizes that make no model
/// (check_architecture).
Architecture read_architecture(const JsonView& json);

/// The own schema; reading it back gives the same model. Members at their defaults are left out.
Json write_architecture(const Architecture& architecture);

/// True if the value is a model of the own schema, whatever else is wrong with it.
bool looks_like_own_schema(const JsonView& json);

/// Own schema or Hugging Face config.json. @throws InputError, also on a file that is neither.
Architecture load_architecture(const std::string& path);
/// The same from text. @param where  names the text in errors. @param name  of a model that does not say its own.
Architecture load_architecture_text(std::string_view text, const std::string& where, const std::string& name = "");

}  // namespace moecast
