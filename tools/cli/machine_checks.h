#pragma once
#include <string>
#include <vector>

namespace moecast {

enum class CheckStatus { ok, warning, missing };

/// One thing that a build or machine can or cannot do, and what to do about it.
struct Check {
  std::string name;
  CheckStatus status = CheckStatus::ok;
  std::string found;
  std::string advice;  ///< empty when nothing needs doing
};

/// CPU, memory, huge pages, governor, virtualisation and load of this machine.
std::vector<Check> machine_checks();
/// Spread of a fixed computation that is repeated for a third of a second.
Check noise_check();
/// Each CPU backend of this build with the kernel family that it chooses here.
std::vector<Check> backend_checks();
/// What this build could do more with: CUDA and MPI.
std::vector<Check> optional_checks();

}  // namespace moecast
