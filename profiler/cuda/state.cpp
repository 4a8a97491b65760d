#include "profiler/cuda/state.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>

namespace moecast {
namespace {

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.pop_back();
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.erase(0, 1);
  return text;
}

}  // namespace

std::map<std::string, std::string> parse_gpu_state(const std::string& line) {
  std::map<std::string, std::string> state;
  std::string keys = kGpuStateFields;
  std::string values = line.substr(0, line.find('\n'));
  while (!keys.empty() && !values.empty()) {
    const std::size_t key_end = keys.find(',');
    const std::size_t value_end = values.find(',');
    std::string key = keys.substr(0, key_end);
    std::replace(key.begin(), key.end(), '.', '_');
    const std::string value = trimmed(values.substr(0, value_end));
    if (!value.empty() && !value.starts_with('[')) state[key] = value;
    keys = key_end == std::string::npos ? "" : keys.substr(key_end + 1);
    values = value_end == std::string::npos ? "" : values.substr(value_end + 1);
  }
  return state;
}

std::map<std::string, std::string> read_gpu_state(const std::string& pci_bus_id) {
  const bool address =
      !pci_bus_id.empty() && pci_bus_id.find_first_not_of("0123456789abcdefABCDEF:.") == std::string::npos;
  if (!address) return {};  // it becomes part of a shell command
  const std::string command = std::string("timeout 20 nvidia-smi --format=csv,noheader --query-gpu=") +
                              kGpuStateFields + " --id=" + pci_bus_id + " 2>/dev/null";
  std::FILE* output = popen(command.c_str(), "r");
  if (output == nullptr) return {};
  std::string text;
  std::array<char, 512> part{};
  while (std::fgets(part.data(), part.size(), output) != nullptr) text += part.data();
  return pclose(output) == 0 ? parse_gpu_state(text) : std::map<std::string, std::string>{};
}

}  // namespace moecast
