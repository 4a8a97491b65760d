#include "tools/loop/configuration_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"
#include "profiler/reference/support.h"

namespace moecast {
namespace {

constexpr std::size_t kMostLines = 100'000;
constexpr std::int64_t kMostTokens = 1 << 20;

Workload workload_of(const JsonView& line) {
  Workload workload;
  if (const auto text = line.find_string("phase")) {
    const auto phase = find_phase(*text);
    if (phase != Phase::decode && phase != Phase::prefill) {
      throw InputError(line.at("phase").where(), fmt::format("\"{}\" is not executed", *text),
                       "write decode or prefill");
    }
    workload.phase = *phase;
  }
  workload.batch = line.find_int("batch", 1, kMostTokens).value_or(1);
  workload.context = line.find_int("context", 0, kMostTokens).value_or(0);
  workload.prompt = line.find_int("prompt", 1, kMostTokens).value_or(1);
  workload.copies = line.find_int("copies", 1, 1024).value_or(1);
  const double zipf = line.find_number("zipf", 0, 8).value_or(0);
  workload.load.kind = zipf > 0 ? LoadKind::zipf : LoadKind::uniform;
  workload.load.parameter = zipf;
  const bool decodes = workload.phase == Phase::decode;
  if (const char* idle = decodes ? "prompt" : "context"; line.has(idle)) {
    throw InputError(line.at(idle).where(), fmt::format("means nothing in {}", to_string(workload.phase)),
                     "leave it out");
  }
  return workload;
}

}  // namespace

std::vector<ValidationCase> read_configurations(const std::string& path,
                                                const std::vector<KernelSetting>& combinations) {
  std::vector<ValidationCase> cases;
  read_lines(path, [&](std::uint64_t number, std::string_view text) {
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) return;
    const std::string where = fmt::format("{}:{}", path, number);
    if (cases.size() >= kMostLines) {
      throw InputError(where, fmt::format("more than {} cases", kMostLines), "split the file");
    }
    const Json json = parse_json(text, where);
    const JsonView line(json, where);
    line.refuse_unknown_keys(
        {"name", "stratum", "architecture", "phase", "batch", "context", "prompt", "copies", "zipf"});
    ValidationCase asked{line.find_string("stratum").value_or("configurations"),
                         read_architecture(line.at("architecture")),
                         {},
                         workload_of(line)};
    asked.architecture.name = line.find_string("name").value_or(std::to_string(number));
    asked.workload.load.seed = number;
    for (const KernelSetting& c : combinations) {
      asked.deployment.backend = c.backend;
      asked.deployment.dtype = c.dtype;
      asked.deployment.threads = c.threads;
      try {
        require_executable(asked.architecture, asked.deployment, asked.workload);
      } catch (const UsageError& error) {
        throw UsageError(where, fmt::format("{}: {}", error.where(), error.problem()), error.hint());
      }
      cases.push_back(asked);
    }
  });
  if (cases.empty()) throw InputError(path, "holds no configuration", "write one JSON object a line");
  return cases;
}

}  // namespace moecast
