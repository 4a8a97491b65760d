#include "tools/cli/machine_checks.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "models/core/quantity_text.h"
#include "profiler/environment.h"

namespace moecast {
namespace {

Check cpu_check(const Environment& machine) {
  const bool vectors = std::find(machine.isa.begin(), machine.isa.end(), "avx2") != machine.isa.end();
  return {"cpu", vectors ? CheckStatus::ok : CheckStatus::warning,
          fmt::format("{}, {} of {} CPUs usable, {}", machine.cpu_model.empty() ? "unknown" : machine.cpu_model,
                      machine.allowed_cpus.size(), machine.logical_cpus, fmt::join(machine.isa, " ")),
          vectors ? "" : "without AVX2 the backends run slow generic kernels"};
}

Check governor_check(const Environment& machine) {
  if (!machine.governor) {
    return {"governor", CheckStatus::ok,
            machine.virtualised ? "not visible (virtual machine: the host decides)" : "not visible", ""};
  }
  const bool steady = *machine.governor == "performance";
  return {"governor", steady ? CheckStatus::ok : CheckStatus::warning, *machine.governor,
          steady ? "" : "clocks may change while measuring: sudo cpupower frequency-set -g performance"};
}

Check huge_page_check(const Environment& machine) {
  const bool never = !machine.transparent_huge_pages || *machine.transparent_huge_pages == "never";
  return {"huge pages", never ? CheckStatus::warning : CheckStatus::ok,
          machine.transparent_huge_pages.value_or("not visible"),
          never ? "weights are measured on small pages: echo madvise | sudo tee "
                  "/sys/kernel/mm/transparent_hugepage/enabled"
                : ""};
}

Check memory_check(const Environment& machine) {
  const Bytes free(static_cast<double>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE)));
  std::optional<Bytes> total;
  if (machine.memory_bytes) total = Bytes(static_cast<double>(*machine.memory_bytes));
  const bool enough = !total || total->value() > 6e9;
  return {"memory", enough ? CheckStatus::ok : CheckStatus::warning,
          fmt::format("{} free of {}", format_bytes(free), format_or_dash(total, format_bytes)),
          enough ? "" : "profiling keeps up to 3 GB of weights: close other programs"};
}

Check load_check(const Environment& machine) {
  if (!machine.load_average_ratio) return {"load", CheckStatus::ok, "not visible", ""};
  const bool idle = *machine.load_average_ratio < 0.25;
  return {"load", idle ? CheckStatus::ok : CheckStatus::warning,
          fmt::format("{:.2f} a CPU over the last minute", *machine.load_average_ratio),
          idle ? "" : "other programs disturb a measurement: wait until they end"};
}

}  // namespace

std::vector<Check> machine_checks() {
  const Environment machine = read_environment();
  return {cpu_check(machine), memory_check(machine), huge_page_check(machine), governor_check(machine),
          load_check(machine)};
}

Check noise_check() {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  volatile double sink = 0;
  const auto begin = Clock::now();
  while (std::chrono::duration<double>(Clock::now() - begin).count() < 0.33) {
    const auto start = Clock::now();
    double x = 1;
    for (int i = 0; i < 100000; ++i) x = x * 1.0000001 + 1e-9;
    sink = x;
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  static_cast<void>(sink);
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  const double spread = times[times.size() * 9 / 10] / median - 1;
  const bool quiet = spread < 0.05;
  return {"noise", quiet ? CheckStatus::ok : CheckStatus::warning,
          fmt::format("p90 of a fixed computation is {} above its median ({} repeats)", format_percent(spread),
                      times.size()),
          quiet ? "" : "no validation can be better than the noise: stop other programs, or measure again later"};
}

}  // namespace moecast
