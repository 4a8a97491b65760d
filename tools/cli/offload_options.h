#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/plan/deployment.h"

namespace moecast {

class Command;

struct InputValue;

/// What was typed about experts that are fetched, as text.
struct OffloadFlags {
  std::string policy;
  std::string overlap;
  std::string resident_bytes;
  std::string host_link;
};

/// Adds --offload, --offload-overlap, --resident-bytes and --host-link.
void add_offload_options(const Command& command, OffloadFlags& flags);

/// @param resident  of --resident-experts. @return nullopt where no offload is asked for.
/// @throws UsageError on unknown words, on both numbers, and on flags that mean nothing without --offload.
std::optional<ExpertOffload> parse_offload(const OffloadFlags& flags, std::optional<std::int64_t> resident);

/// What experts are fetched with, for the answer's `inputs`.
void add_offload_inputs(const OffloadFlags& flags, const ExpertOffload& offload, std::vector<InputValue>& inputs);

}  // namespace moecast
