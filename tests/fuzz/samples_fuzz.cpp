// Any bytes are a table of samples of the operator that their header belongs to, or an InputError. Numbers are written
// with six digits, so what was written once must stay as it is from then on.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "hwprofiles/profile.h"
#include "models/core/error.h"

namespace {

void try_as(moecast::OperatorKind kind, std::string_view text) {
  std::vector<moecast::Measurement> rows;
  try {
    rows = moecast::parse_samples_text(kind, text, "input");
  } catch (const moecast::InputError&) {
    return;
  }
  const std::string written = moecast::samples_text(kind, rows);
  const auto again = moecast::parse_samples_text(kind, written, "written");
  if (again.size() != rows.size() || moecast::samples_text(kind, again) != written) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const char* name : {"gemm", "grouped_gemm", "router", "attention_prefill", "attention_decode"}) {
    if (const auto kind = moecast::parse_operator_kind(name)) try_as(*kind, text);
  }
  return 0;
}
