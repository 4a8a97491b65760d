#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moecast {

/// One data or unified cache as the system shows it. A virtual machine may show more than it has: never feed these
/// sizes to a cost model, measure the bandwidth curve instead.
struct CacheLevel {
  int level = 0;
  std::uint64_t bytes = 0;
  int sharing_cpus = 1;
};

/// What a timing depends on besides the kernel. nullopt = the system does not say.
struct Environment {
  std::string cpu_model;           ///< empty = unknown
  std::vector<std::string> isa;    ///< vector and matrix extensions, sorted ("avx2", "amx_bf16", ...)
  std::vector<CacheLevel> caches;  ///< of the first CPU, instruction caches left out
  int logical_cpus = 0;            ///< on line
  std::vector<int> allowed_cpus;   ///< that this process may run on
  std::optional<std::uint64_t> memory_bytes;
  std::optional<std::string> governor;                ///< cpufreq of the first CPU; virtual machines have none
  std::optional<std::string> transparent_huge_pages;  ///< always, madvise or never
  std::optional<double> load_average_ratio;           ///< one-minute load average per logical CPU
  bool virtualised = false;
  std::string kernel;  ///< release of the operating system's kernel
  std::string compiler;
  std::string build_type;  ///< of this program: Release, RelWithDebInfo, Debug
};

/// Reads /proc and /sys (other roots in tests). Never throws: what cannot be read stays unknown.
Environment read_environment(const std::string& proc_root = "/proc", const std::string& sys_root = "/sys");

/// True if timings of `now` may be compared with a profile taken on `then`: same CPU model and the same extensions.
bool same_machine(const Environment& then, const Environment& now);

/// What a person should know before trusting timings taken here, one sentence each; empty = nothing.
std::vector<std::string> timing_warnings(const Environment& environment);

}  // namespace moecast
