#include "tools/cli/model_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "models/architecture/checks.h"
#include "models/architecture/names.h"
#include "models/architecture/reader.h"
#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/core/json.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

/// The value that a flag names. @throws UsageError with the nearest word.
template <class Enum>
Enum flag_word(const char* flag, const std::string& text) {
  std::vector<std::string_view> known;
  for (const auto& [name, value] : enum_names<Enum>()) {
    if (name == text) return value;
    known.push_back(name);
  }
  const auto near = nearest_name(text, known);
  throw UsageError(
      flag, fmt::format("\"{}\" is not known", text),
      near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("write one of: {}", fmt::join(known, ", ")));
}

ExpertSpec expert_of(const LayerChoice& choice) {
  ExpertSpec expert;
  expert.width = choice.width;
  expert.gated = choice.gated;
  if (!choice.activation.empty()) expert.activation = flag_word<Activation>("--activation", choice.activation);
  return expert;
}

/// Something that is written like a path, or is there.
bool names_a_file(const std::string& name) {
  std::error_code ignored;
  return name.find('/') != std::string::npos || name.ends_with(".json") || fs::exists(name, ignored);
}

}  // namespace

Architecture load_model(const std::string& name, const DataFolders& folders) {
  if (names_a_file(name)) {
    std::error_code ignored;
    // The folder of a checkpoint holds its config.json.
    const fs::path config = fs::path(name) / "config.json";
    return load_architecture(fs::is_directory(name, ignored) && fs::exists(config, ignored) ? config.string() : name);
  }
  const std::vector<std::string> names = zoo_names(folders.zoo);
  const std::vector<std::string_view> known(names.begin(), names.end());
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    const auto near = nearest_name(name, known);
    throw UsageError("--model", fmt::format("\"{}\" is no known model", name),
                     near ? fmt::format("did you mean \"{}\"?", *near)
                          : "moecast list models shows the known ones; a config.json or an own file works too");
  }
  return load_zoo(folders.zoo, name);
}

Architecture make_layer(const LayerChoice& choice) {
  if (choice.top_k > choice.experts) {
    throw UsageError("--top-k", fmt::format("is {}, but there are only {} experts", choice.top_k, choice.experts),
                     fmt::format("choose 1 to {}", choice.experts));
  }
  MoeBlock moe;
  moe.experts = {{choice.experts, expert_of(choice), ""}};
  moe.router.top_k = static_cast<int>(choice.top_k);
  moe.capacity.eval_factor = choice.capacity_factor;
  moe.capacity.pad = choice.pad;
  if (!choice.overflow.empty()) moe.capacity.overflow = flag_word<Overflow>("--overflow", choice.overflow);
  moe.shared.count = choice.shared_experts;
  if (choice.shared_experts > 0) moe.shared.expert = expert_of(choice);
  Architecture architecture;
  architecture.name = "layer";
  architecture.hidden = choice.hidden;
  architecture.decoder = {{{moe}}};
  try {
    check_architecture(architecture, "");
  } catch (const InputError& error) {  // the flags are at fault, not a file
    throw UsageError(error.where(), error.problem(), error.hint());
  }
  return architecture;
}

}  // namespace moecast
