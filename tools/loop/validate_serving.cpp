#include "tools/loop/validate_serving.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <set>

#include "hwprofiles/published_runs.h"
#include "models/core/error.h"
#include "models/core/statistics.h"
#include "models/plan/cache_room.h"
#include "sim/step/served_model.h"
#include "sim/step/service_fit.h"

namespace moecast {
namespace {

constexpr std::array<std::string_view, 3> kOrder{"all", "tpot", "ttft"};
/// Beyond these a queue grows, and the time to the first token is its length.
constexpr double kMostPrefillShare = 0.3;
constexpr double kSaturatedSeconds = 3;
/// vLLM (0.12 in the table) serves Qwen3-235B at 1.1 to 2.7 times what is predicted, at few requests most: bound by its
/// host.
bool is_host_bound(const ServingRow& row) {
  return row.engine == "vllm" && row.model.find("Qwen3-235B") != std::string::npos;
}

class Machines {
 public:
  explicit Machines(const ServingValidation& request) : request_(request) {}

  /// nullptr where the machine is not known.
  const KernelCalibration* kernels(const std::string& system) {
    auto found = known_.find(system);
    if (found == known_.end()) {
      std::unique_ptr<KernelCalibration> calibration;
      if (const std::string folder = request_.machine(system); !folder.empty()) {
        const Profile profile = read_profile(folder);
        calibration = std::make_unique<KernelCalibration>(read_kernel_calibration(folder, profile.name));
        const HardwareQuantity* capacity = profile.find("memory_capacity");
        if (capacity == nullptr) {
          throw InputError(folder, "says no memory capacity", "add the quantity memory_capacity to profile.json");
        }
        capacities_[system] = capacity->value;
      }
      found = known_.emplace(system, std::move(calibration)).first;
    }
    return found->second.get();
  }

  const std::optional<Architecture>& model(const std::string& name) {
    auto found = models_.find(name);
    if (found == models_.end()) found = models_.emplace(name, request_.model(name)).first;
    return found->second;
  }

  /// nullptr where no engine of the name is described.
  const EngineSpec* engine(const std::string& name) {
    auto found = engines_.find(name);
    if (found == engines_.end()) {
      std::unique_ptr<EngineSpec> engine;
      try {
        engine = std::make_unique<EngineSpec>(read_engine(request_.engines, name));
      } catch (const InputError& error) {
        if (std::string(error.what()).find("no serving engine") == std::string::npos) throw;
      }
      found = engines_.emplace(name, std::move(engine)).first;
    }
    return found->second.get();
  }

  /// Kernels of a deployment; compiled once.
  ServiceTerms terms(const ServingRow& row, const RunSettings& settings) {
    const Steps& found = steps(row, settings);
    ServiceLoad load{settings.length_ratio * row.prompt, settings.length_ratio * row.output, row.concurrency};
    load.waves = settings.waves;
    load.wait_steps = settings.wait_steps;
    load.acceptance = settings.acceptance;
    // How much an engine leaves to others is known as badly as that is much: less room than that says nothing of a
    // limit.
    const EngineSpec& spec = *engine(row.engine);
    const double memory = capacities_.at(row.system);
    const double room = cache_room(spec, memory, kUsableMemory, found.beside);
    if (room > (1 - kUsableMemory) * memory) {
      const double length = load.prompt + (spec.reserves_outputs ? load.output : load.output / 2);
      load.admitted = sequences_in_cache(found.architecture, found.deployment, room, length);
    }
    return service_terms(*found.model, load, found.drafts);
  }
  [[nodiscard]] const std::set<std::string>& notes() const { return notes_; }

 private:
  struct Steps {
    std::unique_ptr<StepModel> model;
    std::vector<DraftPass> drafts;
    Architecture architecture;
    Deployment deployment;
    MemoryBreakdown beside;  ///< the cache
  };

  const Steps& steps(const ServingRow& row, const RunSettings& settings) {
    const std::string key =
        fmt::format("{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}", row.model, row.system, row.engine, row.gemm_dtype,
                    row.expert_dtype, row.tp, row.dp, row.moe_tp, row.ep, settings.draft_tokens, settings.expert_dtype,
                    settings.kv_dtype, settings.all_reduce);
    auto found = steps_.find(key);
    if (found == steps_.end()) {
      Architecture architecture = *model(row.model);
      const DType checkpoint = architecture.dtype;
      architecture.dtype = told(row.gemm_dtype, checkpoint).value_or(checkpoint);
      const DType experts = architecture.expert_dtype.value_or(checkpoint);
      architecture.expert_dtype = told(row.expert_dtype, experts).value_or(experts);
      if (!settings.expert_dtype.empty()) architecture.expert_dtype = parse_dtype(settings.expert_dtype);
      Deployment deployment;
      deployment.tp = row.tp;
      deployment.dp = row.dp;
      deployment.ep = row.ep;
      deployment.moe_tp = row.moe_tp;
      deployment.backend = row.engine;
      deployment.draft_tokens = settings.draft_tokens;
      if (!settings.kv_dtype.empty()) deployment.kv_dtype = parse_dtype(settings.kv_dtype);
      deployment.all_reduce = settings.all_reduce;
      const EngineSpec& spec = *engine(row.engine);
      const KernelCalibration& calibration = *kernels(row.system);
      StepOperators operators = make_step_operators(architecture, deployment, spec, calibration);
      for (const std::string& note : operators.notes) notes_.insert(row.system + ": " + note);
      Steps made;
      made.model = std::make_unique<StepModel>(std::move(operators), spec, deployment, calibration.device);
      made.drafts = make_draft_passes(architecture, deployment, spec, calibration);
      made.beside = memory_beside_cache(architecture, deployment, ServedLoad().batched_tokens);
      made.architecture = architecture;
      made.deployment = deployment;
      found = steps_.emplace(key, std::move(made)).first;
    }
    return found->second;
  }

  /// A table's "fp8" does not tell one scale a tensor from scales of blocks: the checkpoint does.
  static std::optional<DType> told(const std::string& label, DType checkpoint) {
    const std::optional<DType> dtype = parse_dtype(label);
    if (!dtype && !label.empty())
      throw InputError("serving table", fmt::format("no format is called \"{}\"", label),
                       "write bf16, fp8, fp8_block, nvfp4 or another format of weights");
    return dtype == DType::fp8 && checkpoint == DType::fp8_block ? checkpoint : dtype;
  }

  const ServingValidation& request_;
  std::map<std::string, std::unique_ptr<KernelCalibration>> known_;
  std::map<std::string, double> capacities_;  ///< bytes
  std::map<std::string, std::optional<Architecture>> models_;
  std::map<std::string, std::unique_ptr<EngineSpec>> engines_;
  std::map<std::string, Steps> steps_;
  std::set<std::string> notes_;
};

struct Judged {
  ServingRow row;
  MeasuredService measured;
  RunSettings settings;
  bool clean = true;    ///< no twin that differs, not bound by a host
  bool teaches = true;  ///< a law: not bound by a host, of no release that was replaced
};

std::string architecture_of(const ServingRow& row) {
  return row.model.starts_with("deepseek") ? "deepseek-v3" : row.model.substr(row.model.find('/') + 1);
}

std::string load_of(const ServingRow& row) { return fmt::format("{} {} {}", row.prompt, row.output, row.concurrency); }

std::string deployment_of(const ServingRow& row, const RunSettings& settings) {
  return fmt::format("{} {} {} {} tp{} dp{} moe_tp{} ep{} drafts{}", row.system, row.engine, row.gemm_dtype,
                     row.expert_dtype, row.tp, row.dp, row.moe_tp, row.ep, settings.draft_tokens);
}

/// Runs of one kind differ by what was deployed, not by what was mended meanwhile.
std::string release_of(const RunSettings& settings) {
  if (settings.defective) return "reported defects";
  return settings.superseded ? "replaced releases" : "other releases";
}

std::string group_of(const ServingRow& row, const std::string& leave_out) {
  if (leave_out == "model") return architecture_of(row);
  if (leave_out == "system") return row.system;
  if (leave_out == "model,system") return architecture_of(row) + " " + row.system;
  throw UsageError("--leave-out", fmt::format("\"{}\" is no group of serving rows", leave_out),
                   "model, system, or model,system");
}

/// Rows that predict and judge, in the order of the table.
std::vector<Judged> usable_rows(const ServingValidation& request, const ServingTable& table, Machines& machines,
                                ServingValidationReport& report) {
  std::vector<Judged> rows;
  const std::vector<PublishedRuns> known = PublishedRuns::read_all(request.benchmarks);
  for (const ServingRow& row : table.rows) {
    const auto skip = [&](const std::string& why) { ++report.not_judged[why]; };
    if (row.system == "gb200") {
      skip("GB200 rows add up GPUs of several nodes");
    } else if (!machines.model(row.model)) {
      skip("no architecture of " + row.model);
    } else if (machines.engine(row.engine) == nullptr) {
      skip("no engine " + row.engine);
    } else if (machines.kernels(row.system) == nullptr) {
      skip("no profile of " + row.system);
    } else if (row.tp > 8 || (row.tp & (row.tp - 1)) != 0) {
      skip("tensor parallelism that no node has");
    } else {
      const RunSettings settings = settings_of(known, row);
      try {
        if (std::ranges::none_of(known, [&](const PublishedRuns& runs) { return runs.ran(row); })) {
          ++report.unknown_runs;
        }
        Judged judged{row, {}, settings, !row.twin_differs && !is_host_bound(row)};
        judged.teaches = !judged.settings.superseded && !judged.settings.defective && !is_host_bound(row);
        judged.measured.terms = machines.terms(row, judged.settings);
        judged.measured.engine = row.engine;
        judged.measured.ttft_s = row.ttft_s;
        judged.measured.tpot_s = row.tpot_s;
        rows.push_back(std::move(judged));
      } catch (const InputError& error) {
        skip(error.what());
      }
    }
    if (request.progress) {
      request.progress(static_cast<double>(rows.size()) / static_cast<double>(table.rows.size()));
    }
  }
  return rows;
}

/// Law of every row.
std::vector<EngineService> laws_of(const ServingValidation& request, const std::vector<Judged>& rows,
                                   Machines& machines, ServingValidationReport& report) {
  std::vector<EngineService> laws(rows.size());
  const auto fitted = [&](const std::string& without) {
    std::vector<MeasuredService> measured;
    for (const Judged& judged : rows) {
      if (!judged.teaches) continue;
      if (!without.empty() && group_of(judged.row, request.leave_out) == without) continue;
      measured.push_back(judged.measured);
    }
    return fit_services(measured);
  };
  const auto pick = [](const std::map<std::string, EngineService>& from, const std::string& engine) {
    const auto found = from.find(engine);
    return found == from.end() ? from.at("") : found->second;
  };
  if (!request.leave_out.empty()) {
    std::set<std::string> groups;
    for (const Judged& judged : rows) groups.insert(group_of(judged.row, request.leave_out));
    for (const std::string& group : groups) {
      const auto without = fitted(group);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        if (group_of(rows[i].row, request.leave_out) == group) laws[i] = pick(without, rows[i].row.engine);
      }
    }
    return laws;
  }
  if (request.host_law) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      laws[i] = {};
      laws[i].layer_s = machines.engine(rows[i].row.engine)->host.layer_kernels_s;
    }
    return laws;
  }
  if (request.fit) report.laws = fitted("");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    laws[i] = request.fit ? pick(report.laws, rows[i].row.engine) : machines.engine(rows[i].row.engine)->service;
  }
  return laws;
}

std::array<double, 2> spread_of(const std::vector<double>& logarithms) {
  if (logarithms.empty()) return {};
  return {std::max(0.0, -quantile(logarithms, 0.05)), std::max(0.0, quantile(logarithms, 0.95))};
}

}  // namespace

ServingValidationReport validate_serving(const ServingValidation& request) {
  ServingValidationReport report;
  const ServingTable table = read_serving_table(request.table);
  report.read = table.read;
  report.not_judged = table.left_out;
  Machines machines(request);
  const std::vector<Judged> rows = usable_rows(request, table, machines, report);
  if (rows.empty()) throw InputError(request.table, "holds no row that can be judged");
  const std::vector<EngineService> laws = laws_of(request, rows, machines, report);
  Strata strata;
  std::vector<RankedService> services, comparable;
  std::map<std::string, std::array<std::vector<double>, 2>> ratios;  // by engine: tpot, ttft
  std::map<std::string, std::set<std::string>> served_models;        // by engine, of clean rows
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const ServingRow& row = rows[i].row;
    const ServiceTerms& terms = rows[i].measured.terms;
    const EngineSpec& engine = *machines.engine(row.engine);
    Outcome tpot;
    const ServiceTimes times = service_times(terms, laws[i]);
    tpot.predicted_s = times.tpot_s;
    tpot.low_s = tpot.predicted_s * std::exp(-engine.tpot_interval[0]);
    tpot.high_s = tpot.predicted_s * std::exp(engine.tpot_interval[1]);
    tpot.measured_s = row.tpot_s;
    tpot.roofline_s = terms.decode_s;  // kernels alone
    strata.add("tpot every row", tpot);
    const auto add = [&](const std::string& what, const Outcome& outcome) {
      strata.add(what, outcome);
      strata.add(what + " model " + architecture_of(row), outcome);
      strata.add(what + " system " + row.system, outcome);
      strata.add(what + " engine " + row.engine, outcome);
      strata.add(fmt::format("{} {}", what, release_of(rows[i].settings)), outcome);
      if (rows[i].settings.draft_tokens > 0) strata.add(what + " guessed tokens", outcome);
    };
    if (rows[i].clean) {
      add("tpot", tpot);
      services.push_back({architecture_of(row), load_of(row), deployment_of(row, rows[i].settings), tpot.predicted_s,
                          tpot.measured_s});
      comparable.push_back(services.back());
      comparable.back().load = fmt::format("{} {}", load_of(row), release_of(rows[i].settings));
      served_models[row.engine].insert(architecture_of(row));
      for (const std::string& of : {row.engine, std::string()}) {
        ratios[of][0].push_back(std::log(row.tpot_s / tpot.predicted_s));
      }
    }
    const bool saturated = prefill_share(terms, row.tpot_s) >= kMostPrefillShare || row.ttft_s >= kSaturatedSeconds;
    if (saturated) {
      ++report.not_judged["TTFT of a saturated service: a queue's length"];
      continue;
    }
    Outcome ttft;
    ttft.predicted_s = times.ttft_s;
    ttft.low_s = ttft.predicted_s * std::exp(-engine.ttft_interval[0]);
    ttft.high_s = ttft.predicted_s * std::exp(engine.ttft_interval[1]);
    ttft.measured_s = row.ttft_s;
    ttft.roofline_s = terms.prefill_s;
    add("ttft", ttft);
    for (const std::string& of : {row.engine, std::string()}) {
      ratios[of][1].push_back(std::log(row.ttft_s / ttft.predicted_s));
    }
  }
  for (const auto& [engine, values] : ratios) {
    if (engine.empty() || served_models[engine].size() > 1) {
      report.spreads[engine] = {spread_of(values[0]), spread_of(values[1])};
    }
  }
  report.rankings = rank_deployments(services);
  report.rankings_comparable = rank_deployments(comparable);
  report.strata = strata.summaries(kOrder);
  report.notes.assign(machines.notes().begin(), machines.notes().end());
  if (report.unknown_runs > 0) {
    report.notes.push_back(fmt::format(
        "{} rows of no benchmark that is known (hwprofiles/benchmarks): taken as ten waves of requests of equal length",
        report.unknown_runs));
  }
  return report;
}

}  // namespace moecast
