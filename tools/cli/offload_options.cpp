#include "tools/cli/offload_options.h"

#include <fmt/format.h>

#include <cmath>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/core/quantity_text.h"
#include "tools/cli/command.h"
#include "tools/cli/query_options.h"

namespace moecast {
namespace {

constexpr const char* kOffloadGroup = "Experts that are fetched";

template <class Value>
Value word(const std::optional<Value>& value, const std::string& flag, const std::string& typed,
           const std::vector<std::string_view>& known) {
  if (value) return *value;
  const auto near = nearest_name(typed, known);
  throw UsageError(
      flag, fmt::format("\"{}\" is not known", typed),
      near ? fmt::format("did you mean \"{}\"?", *near) : fmt::format("write one of: {}", fmt::join(known, ", ")));
}

}  // namespace

void add_offload_options(const Command& command, OffloadFlags& flags) {
  const auto text = [&](const char* name, std::string& value, const char* type, const char* help) {
    command.add_option(name, value, help).type_name(type).group(kOffloadGroup).not_empty();
  };
  text("--offload", flags.policy, "POLICY",
       "Experts that do not fit are fetched when they are used; those that stay: lru (last used), static (most "
       "popular)");
  text("--resident-bytes", flags.resident_bytes, "BYTES",
       "Memory of a rank for the experts that stay, e.g. 40GB (default: what the rest of the step leaves)");
  text("--offload-overlap", flags.overlap, "NAME",
       "none (default): fetched after the router; layer: while the layer before is computed");
  text("--host-link", flags.host_link, "RATE",
       "From the host's memory to a GPU, from the disk to a CPU, above 0, e.g. 25GB/s (default: the profile's)");
}

std::optional<ExpertOffload> parse_offload(const OffloadFlags& flags, std::optional<std::int64_t> resident) {
  if (flags.policy.empty()) {
    const char* idle = !flags.overlap.empty()          ? "--offload-overlap"
                       : !flags.resident_bytes.empty() ? "--resident-bytes"
                       : !flags.host_link.empty()      ? "--host-link"
                       : resident                      ? "--resident-experts"
                                                       : nullptr;
    if (idle != nullptr)
      throw UsageError(idle, "means nothing where all experts stay", "write --offload lru or static");
    return std::nullopt;
  }
  ExpertOffload offload;
  offload.policy = word(find_residency_policy(flags.policy), "--offload", flags.policy, {"lru", "static"});
  if (!flags.overlap.empty()) {
    offload.overlap = word(find_fetch_overlap(flags.overlap), "--offload-overlap", flags.overlap, {"none", "layer"});
  }
  if (resident && !flags.resident_bytes.empty()) {
    throw UsageError("--resident-bytes", "contradicts --resident-experts", "give one of the two");
  }
  offload.resident = resident;
  if (!flags.resident_bytes.empty()) offload.resident_bytes = parse_bytes(flags.resident_bytes, "--resident-bytes");
  if (!flags.host_link.empty()) {
    offload.link = parse_bytes_per_second(flags.host_link, "--host-link");
    if (offload.link->value() <= 0) throw UsageError("--host-link", "must be above 0", "write e.g. 25GB/s");
  }
  return offload;
}

void add_offload_inputs(const OffloadFlags& flags, const ExpertOffload& offload, std::vector<InputValue>& inputs) {
  inputs.push_back({"offload", std::string(to_string(offload.policy)), true});
  inputs.push_back({"offload_overlap", std::string(to_string(offload.overlap)), !flags.overlap.empty()});
  if (offload.resident_bytes) inputs.push_back({"resident_bytes", offload.resident_bytes->value(), true});
  if (offload.link) inputs.push_back({"host_link_bytes_per_s", offload.link->value(), true});
}

}  // namespace moecast
