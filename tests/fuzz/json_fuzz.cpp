// Any bytes are JSON or an InputError; what was read is written and read back unchanged.
#include <cassert>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "models/core/error.h"
#include "models/core/json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const moecast::Json value = moecast::parse_json(text, "input");
    const std::string written = moecast::dump_json_line(value);
    if (moecast::parse_json(written, "written") != value) std::abort();
  } catch (const moecast::InputError&) {
    return 0;
  }
  return 0;
}
