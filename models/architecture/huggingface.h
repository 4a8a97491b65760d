#pragma once
#include <string>

#include "models/architecture/architecture.h"
#include "models/core/json.h"

namespace moecast {

/// True if the value has the marks of a Hugging Face config.json: model_type, architectures or a width of tokens.
bool looks_like_huggingface(const JsonView& json);

/// A config.json of the transformers library, decoder-only or encoder-decoder; of multimodal ones the language model.
/// Families that are not known are imported from their fields, with notes on what was assumed and ignored.
/// @param name  of the result.
/// @throws InputError naming a missing essential field with its synonyms, or a field that makes no model.
Architecture import_huggingface(const JsonView& config, const std::string& name);

}  // namespace moecast
