// Any bytes are a model (own schema or a Hugging Face config.json) or an InputError; one that was read can be counted,
// written, and read back as the same model.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "models/architecture/accounting.h"
#include "models/architecture/reader.h"
#include "models/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  moecast::Architecture model;
  try {
    model = moecast::load_architecture_text({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const moecast::InputError&) {
    return 0;
  }
  const moecast::ParameterCount count = moecast::count_parameters(model);
  if (!std::isfinite(count.total) || !(count.total >= 0) || !(count.active >= 0)) std::abort();
  const moecast::Json written = moecast::write_architecture(model);
  if (!(moecast::read_architecture(moecast::JsonView(written, "written")) == model)) std::abort();
  return 0;
}
