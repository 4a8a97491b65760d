#include "tools/loop/machine_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <sstream>

namespace moecast {
namespace {

std::string cache_text(const std::vector<CacheLevel>& caches) {
  std::vector<std::string> parts;
  for (const CacheLevel& cache : caches) {
    parts.push_back(fmt::format("L{} {} B of {} CPUs", cache.level, cache.bytes, cache.sharing_cpus));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string value_of(const std::map<std::string, std::string>& record, const std::string& key) {
  const auto found = record.find(key);
  return found == record.end() ? std::string() : found->second;
}

}  // namespace

std::map<std::string, std::string> environment_record(const Environment& environment) {
  std::map<std::string, std::string> record;
  const auto add = [&](const char* key, std::string value) {
    if (!value.empty()) record[key] = std::move(value);
  };
  add("cpu_model", environment.cpu_model);
  add("isa", fmt::format("{}", fmt::join(environment.isa, " ")));
  add("caches_shown", cache_text(environment.caches));
  add("logical_cpus", std::to_string(environment.logical_cpus));
  add("allowed_cpus", fmt::format("{}", fmt::join(environment.allowed_cpus, " ")));
  if (environment.memory_bytes) add("memory_bytes", std::to_string(*environment.memory_bytes));
  add("governor", environment.governor.value_or(""));
  add("transparent_huge_pages", environment.transparent_huge_pages.value_or(""));
  if (environment.load_average_ratio) add("load_average_ratio", fmt::format("{:.2f}", *environment.load_average_ratio));
  add("virtualised", environment.virtualised ? "yes" : "no");
  add("kernel", environment.kernel);
  add("compiler", environment.compiler);
  add("build_type", environment.build_type);
  return record;
}

bool recorded_on(const Profile& profile, const Environment& machine) {
  const std::map<std::string, std::string> now = environment_record(machine);
  return value_of(profile.environment, "cpu_model") == value_of(now, "cpu_model") &&
         value_of(profile.environment, "isa") == value_of(now, "isa");
}

std::string machine_name(const Environment& machine) {
  std::string name;
  bool in_brackets = false;
  for (const char c : machine.cpu_model.empty() ? std::string("cpu") : machine.cpu_model) {
    if (c == '(') in_brackets = true;
    if (!in_brackets && std::isalnum(static_cast<unsigned char>(c)) != 0) {
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
    if (c == ')') in_brackets = false;
  }
  while (name.ends_with('-')) name.pop_back();
  return fmt::format("{}-{}cpu", name, machine.allowed_cpus.size());
}

std::vector<int> profiled_threads(const Profile& profile) {
  std::istringstream text(value_of(profile.environment, "profiled_threads"));
  std::vector<int> threads;
  for (int value = 0; text >> value;) threads.push_back(value);
  std::sort(threads.begin(), threads.end());
  return threads.empty() ? std::vector<int>{1} : threads;
}

void record_threads(Profile& profile, const std::vector<int>& threads) {
  profile.environment["profiled_threads"] = fmt::format("{}", fmt::join(threads, " "));
}

}  // namespace moecast
