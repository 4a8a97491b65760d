// Recorded routings, line by line.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <string_view>

#include "models/core/error.h"
#include "models/routing/routing_trace.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  moecast::RoutingTraceLines lines("fuzz");
  moecast::RoutingTrace trace;
  std::int64_t tokens = 0;
  try {
    for (std::uint64_t number = 1; !text.empty(); ++number) {
      const std::size_t end = text.find('\n');
      if (const auto* token = lines.parse(number, text.substr(0, end))) {
        trace.count(*token, lines.layer_index());
        ++tokens;
      }
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    }
    if (tokens == 0) return 0;
    trace.top_k = lines.top_k();
    if (trace.highest_expert < 64) static_cast<void>(moecast::trace_popularity(trace, 64));
  } catch (const moecast::Error&) {
  }
  // Nothing is lost or made up.
  if (std::accumulate(trace.tokens.begin(), trace.tokens.end(), std::int64_t{0}) > tokens + 1) std::abort();
  for (std::size_t layer = 0; layer < trace.rows.size() && lines.top_k() > 0; ++layer) {
    const std::int64_t rows = std::accumulate(trace.rows[layer].begin(), trace.rows[layer].end(), std::int64_t{0});
    if (rows != trace.tokens[layer] * lines.top_k()) std::abort();
  }
  return 0;
}
