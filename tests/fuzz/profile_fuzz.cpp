// Any bytes are a profile or an InputError; what was read is written and read back unchanged.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "hwprofiles/profile.h"
#include "models/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  moecast::Profile profile;
  try {
    profile = moecast::parse_profile_text({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const moecast::InputError&) {
    return 0;
  }
  const std::string written = moecast::profile_text(profile);
  if (moecast::profile_text(moecast::parse_profile_text(written, "written")) != written) std::abort();
  return 0;
}
