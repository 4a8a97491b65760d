// Any bytes are a calibration or an InputError; one that was read can be written, and a model can be made of it.
#include <cstdint>
#include <string_view>

#include "models/core/error.h"
#include "sim/cost/calibration.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  moecast::Calibration calibration;
  try {
    calibration = moecast::parse_calibration_text({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const moecast::InputError&) {
    return 0;
  }
  static_cast<void>(moecast::calibration_text(calibration));
  static_cast<void>(moecast::make_cost_model(std::make_shared<const moecast::Calibration>(std::move(calibration))));
  return 0;
}
