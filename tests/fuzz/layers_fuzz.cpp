// Any bytes are executed layers, or an InputError; what was written once reads back as it is.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "hwprofiles/layers.h"
#include "models/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<moecast::ExecutedLayer> layers;
  try {
    layers = moecast::parse_layers_text({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const moecast::InputError&) {
    return 0;
  }
  const std::string written = moecast::layers_text(layers);
  if (moecast::layers_text(moecast::parse_layers_text(written, "written")) != written) std::abort();
  return 0;
}
