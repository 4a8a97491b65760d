#include "profiler/environment.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string_view>

namespace moecast {
namespace {

#ifndef MOECAST_BUILD_TYPE
#define MOECAST_BUILD_TYPE "unknown"
#endif

/// A load above this share of the CPUs before we start means that somebody else is working.
constexpr double kBusyLoadRatio = 0.25;

constexpr std::array<std::string_view, 8> kIsaPrefixes{"avx", "amx", "fma", "f16c", "sse4", "asimd", "sve", "bf16"};

std::string trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\n");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\n") - first + 1));
}

std::optional<std::string> first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return trim(line);
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return number;
}

/// "48K", "2048K", "480M" as sysfs writes cache sizes.
std::optional<std::uint64_t> parse_size(std::string_view text) {
  const auto number = parse_number<std::uint64_t>(text);
  if (!number) return std::nullopt;
  switch (text.back()) {
    case 'K': return *number << 10;
    case 'M': return *number << 20;
    case 'G': return *number << 30;
    default: return number;
  }
}

/// "0-3,8" -> 0 1 2 3 8.
std::vector<int> parse_cpu_list(std::string_view text) {
  std::vector<int> cpus;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    const std::size_t dash = item.find('-');
    const auto low = parse_number<int>(item);
    const auto high = dash == std::string_view::npos ? low : parse_number<int>(item.substr(dash + 1));
    if (low && high && *high - *low < 4096) {
      for (int cpu = *low; cpu <= *high; ++cpu) cpus.push_back(cpu);
    }
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return cpus;
}

bool is_vector_extension(std::string_view flag) {
  return std::any_of(kIsaPrefixes.begin(), kIsaPrefixes.end(),
                     [&](std::string_view prefix) { return flag.starts_with(prefix); });
}

void read_cpuinfo(const std::string& path, Environment& environment) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) {
      if (!environment.isa.empty()) break;  // the first CPU is enough
      continue;
    }
    const std::string key = trim(std::string_view(line).substr(0, colon));
    const std::string value = trim(std::string_view(line).substr(colon + 1));
    if (key == "model name" && environment.cpu_model.empty()) environment.cpu_model = value;
    if (key != "flags" && key != "Features") continue;
    std::istringstream flags(value);
    for (std::string flag; flags >> flag;) {
      if (flag == "hypervisor") environment.virtualised = true;
      if (is_vector_extension(flag)) environment.isa.push_back(flag);
    }
  }
  std::sort(environment.isa.begin(), environment.isa.end());
}

std::vector<CacheLevel> read_caches(const std::string& sys_root) {
  std::vector<CacheLevel> caches;
  for (int index = 0; index < 16; ++index) {
    const std::string folder = sys_root + "/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
    const auto type = first_line(folder + "/type");
    if (!type) break;
    if (*type == "Instruction") continue;
    const auto level = parse_number<int>(first_line(folder + "/level").value_or(""));
    const auto bytes = parse_size(first_line(folder + "/size").value_or(""));
    if (!level || !bytes) continue;
    const auto sharing = parse_cpu_list(first_line(folder + "/shared_cpu_list").value_or(""));
    caches.push_back({*level, *bytes, std::max(1, static_cast<int>(sharing.size()))});
  }
  return caches;
}

std::optional<std::uint64_t> read_memory(const std::string& path) {
  std::ifstream file(path);
  for (std::string key, unit; file >> key;) {
    std::uint64_t kib = 0;
    if (key == "MemTotal:" && file >> kib) return kib << 10;
    std::getline(file, unit);
  }
  return std::nullopt;
}

/// "always [madvise] never" -> madvise.
std::optional<std::string> chosen(const std::optional<std::string>& line) {
  if (!line) return std::nullopt;
  const std::size_t open = line->find('[');
  const std::size_t close = line->find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) return std::nullopt;
  return line->substr(open + 1, close - open - 1);
}

std::vector<int> affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace

Environment read_environment(const std::string& proc_root, const std::string& sys_root) {
  Environment environment;
  read_cpuinfo(proc_root + "/cpuinfo", environment);
  environment.caches = read_caches(sys_root);
  const auto online = first_line(sys_root + "/devices/system/cpu/online");
  environment.logical_cpus = static_cast<int>(parse_cpu_list(online.value_or("")).size());
  environment.allowed_cpus = affinity();
  environment.memory_bytes = read_memory(proc_root + "/meminfo");
  environment.governor = first_line(sys_root + "/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  environment.transparent_huge_pages = chosen(first_line(sys_root + "/kernel/mm/transparent_hugepage/enabled"));
  const auto load = parse_number<double>(first_line(proc_root + "/loadavg").value_or(""));
  if (load && environment.logical_cpus > 0) environment.load_average_ratio = *load / environment.logical_cpus;
  utsname names{};
  if (uname(&names) == 0) environment.kernel = names.release;
  environment.compiler = __VERSION__;
  environment.build_type = MOECAST_BUILD_TYPE;
  return environment;
}

bool same_machine(const Environment& then, const Environment& now) {
  return then.cpu_model == now.cpu_model && then.isa == now.isa;
}

std::vector<std::string> timing_warnings(const Environment& environment) {
  std::vector<std::string> warnings;
  if (environment.build_type == "Debug") warnings.emplace_back("a Debug build measures nothing worth publishing");
  if (environment.governor && *environment.governor != "performance") {
    warnings.push_back("the CPU governor is \"" + *environment.governor +
                       "\": clocks move with load; set it to \"performance\"");
  }
  if (environment.load_average_ratio && *environment.load_average_ratio > kBusyLoadRatio) {
    warnings.emplace_back("other work is running on this machine: expect noise");
  }
  if (environment.transparent_huge_pages == std::optional<std::string>("never")) {
    warnings.emplace_back("huge pages are off: large weights are read slower than they could be");
  }
  if (static_cast<int>(environment.allowed_cpus.size()) < environment.logical_cpus) {
    warnings.emplace_back("this process may use only some of the CPUs");
  }
  return warnings;
}

}  // namespace moecast
