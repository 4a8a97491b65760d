#include "sim/predictor.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/plan/graph.h"
#include "models/plan/memory.h"
#include "sim/analytic/parallel_efficiency.h"
#include "tools/cli/prediction_report.h"
#include "tools/cli/query_answers.h"
#include "tools/cli/query_options.h"
#include "tools/python/bindings/bindings.h"
#include "tools/python/bindings/estimate.h"
#include "tools/python/bindings/questions.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace moecast::python {
namespace {

std::optional<double> seconds(const std::optional<Seconds>& value) {
  return value ? std::optional(value->value()) : std::nullopt;
}

class PredictorHandle {
 public:
  PredictorHandle(const std::string& hw, const std::string& backend, const std::string& dtype, std::int64_t threads,
                  const std::string& strategy, const std::string& engine)
      : hw_(hw), setting_(make_setting(hw, backend, dtype, threads, strategy)) {
    if (engine != "analytic" && engine != "event") {
      throw UsageError("engine", "\"" + engine + "\" is no engine", "write analytic or event");
    }
    if (engine == "event" && setting_.hardware.gpu) {
      throw UsageError("engine", "whole steps of GPUs under the event engine are not in the package",
                       "moecast predict --engine event on the command line has them");
    }
    predictor_ = engine == "event" ? Predictor::load(setting_.hardware.folder, Engine::event)
                                   : load_predictor(setting_.hardware, setting_.folders);
  }

  [[nodiscard]] Estimate predict(const Architecture& architecture, const std::string& phase, std::int64_t batch,
                                 std::int64_t context, std::int64_t prompt, std::int64_t source,
                                 std::int64_t prefill_batch, std::int64_t prefix, std::int64_t copies,
                                 const std::string& load, std::uint64_t seed, const std::vector<std::int64_t>& rows,
                                 int tp, int ep, int dp, int pp, std::optional<int> moe_tp, int cp,
                                 std::optional<int> micro_batches, int redundant_experts, bool eager, int draft_tokens,
                                 std::optional<double> acceptance, const std::string& kv_dtype,
                                 const std::string& all_reduce, std::int64_t max_context, const std::string& without,
                                 bool rated) const {
    Query query;
    query.architecture = architecture;
    query.deployment = setting_.deployment;
    query.deployment.tp = tp;
    query.deployment.ep = ep;
    query.deployment.dp = dp;
    query.deployment.pp = pp;
    query.deployment.moe_tp = moe_tp;
    query.deployment.cp = cp;
    query.deployment.micro_batches = micro_batches;
    query.deployment.redundant_experts = redundant_experts;
    query.deployment.eager = eager;
    query.deployment.draft_tokens = draft_tokens;
    if (!kv_dtype.empty()) query.deployment.kv_dtype = parse_dtype_flag(kv_dtype, "kv_dtype");
    query.deployment.all_reduce = parse_all_reduce(all_reduce, "all_reduce");
    if (max_context > 0) query.architecture.max_context = max_context;
    // Steps of GPUs are asked with the popularity that trained routers show, where nobody says another.
    const std::string said = !load.empty() ? load : setting_.hardware.gpu ? "log-normal:1" : "uniform";
    query.workload =
        make_workload(phase, batch, context, prompt, source, prefill_batch, prefix, copies, said, seed, rows);
    query.workload.acceptance = acceptance;
    query.without = parse_without(without);
    query.inputs = inputs_of(query, said, !load.empty(), max_context > 0);
    fill_in_assumed(query, setting_.hardware);
    Prediction prediction = predictor_->predict(query.architecture, query.deployment, query.workload, query.without);
    if (rated) {
      rate_expert_parallelism(*predictor_, query.architecture, query.deployment, query.workload, query.without,
                              prediction);
    }
    return {{std::move(query), std::move(prediction)}, std::nullopt, ""};
  }

  [[nodiscard]] const Setting& setting() const { return setting_; }

 private:
  [[nodiscard]] std::vector<InputValue> inputs_of(const Query& query, const std::string& load, bool load_given,
                                                  bool max_context_given) const {
    const Workload& w = query.workload;
    const Deployment& d = query.deployment;
    const auto number = [](auto value) { return static_cast<std::int64_t>(value); };
    return {{"model", query.architecture.name, true},
            {"hw", hw_, true},
            {"hw_folder", setting_.hardware.folder, false},
            {"phase", std::string(to_string(w.phase)), true},
            {"batch", w.batch, true},
            {"context_tokens", w.context, true},
            {"prompt_tokens", w.prompt, true},
            {"prefix_tokens", prefix_tokens(w), w.phase == Phase::prefill || w.phase == Phase::mixed},
            {"copies", w.copies, true},
            {"tp", number(d.tp), true},
            {"ep", number(d.ep), true},
            {"dp", number(d.dp), true},
            {"pp", number(d.pp), true},
            {"cp", number(d.cp), true},
            {"eager", d.eager, d.eager},
            {"draft_tokens", number(d.draft_tokens), d.draft_tokens > 0},
            {"kv_dtype", std::string(to_string(cache_dtype(query.architecture, d))), d.kv_dtype.has_value()},
            {"max_context_tokens", query.architecture.max_context, max_context_given},
            {"threads", number(d.threads), false},
            {"backend", d.backend, !setting_.deployment.backend.empty()},
            {"strategy", strategy_name(d.strategy), false},
            {"dtype", std::string(to_string(d.dtype.value_or(query.architecture.dtype))),
             setting_.deployment.dtype.has_value()},
            {"load", load, load_given},
            {"seed", number(w.load.seed), false}};
  }

  std::string hw_;
  Setting setting_;
  std::unique_ptr<Predictor> predictor_;
};

nb::dict factors_of(const Estimate& e) {
  nb::dict out;
  if (!e.of().latency) return out;
  const Factors& f = e.of().factors;
  out["all_to_all_s"] = f.all_to_all.value();
  out["memory_bandwidth_s"] = f.memory_bandwidth.value();
  out["compute_s"] = f.compute.value();
  out["routing_overhead_s"] = f.routing_overhead.value();
  out["expert_parallel_efficiency_ratio"] = nb::cast(f.expert_parallel_efficiency_ratio);
  return out;
}

nb::dict memory_of(const Estimate& e) {
  const MemoryPerRank& m = e.of().memory;
  nb::dict out;
  out["weights_bytes"] = m.weights.value();
  out["kv_cache_bytes"] = m.kv_cache.value();
  out["activations_bytes"] = m.activations.value();
  out["workspace_bytes"] = m.workspace.value();
  out["total_bytes"] = m.total().value();
  out["capacity_bytes"] = nb::cast(m.capacity ? std::optional(m.capacity->value()) : std::nullopt);
  return out;
}

std::optional<double> tpot_of(const Estimate& e) {
  if (e.tpot) return e.tpot->value();
  return e.of().speculation ? std::optional(e.of().speculation->tpot.value()) : seconds(e.of().latency);
}

/// Kernel calls of the step, each expert's GEMM one: what StackBatch counts. nullopt where engines are not modelled.
std::optional<double> calls_of(const Estimate& e) {
  const Query& query = e.answer.query;
  if (!e.of().latency || query.architecture.decoder.empty() && query.architecture.encoder.empty()) return std::nullopt;
  double sum = 0;
  for (const Operator& op : build_graph(query.architecture, query.deployment, query.workload).operators) {
    double calls = op.rows.empty() ? 1 : 0;
    for (const RowGroup& group : op.rows) calls += static_cast<double>(group.experts);
    sum += calls * op.count;
  }
  return sum;
}

std::string report_of(const Estimate& e) { return e.text.empty() ? dump_json(prediction_json(e.answer)) : e.text; }

Estimate sum_of(const nb::list& parts, const std::map<std::string, std::int64_t>& sizes) {
  std::vector<std::pair<double, Estimate>> steps;
  for (const nb::handle part : parts) steps.push_back(nb::cast<std::pair<double, Estimate>>(part));
  if (steps.empty()) throw InputError("steps", "there is none");
  std::vector<InputValue> inputs{{"phase", std::string("request"), true}};
  for (const auto& [name, size] : sizes) inputs.push_back({name, size, true});
  return summed(steps, inputs);
}

std::string text_of(const Estimate& e) {
  if (!e.of().latency) return "<moecast.Prediction " + status_name(e.of().status) + ": " + e.of().reason + ">";
  return "<moecast.Prediction " + std::to_string(e.of().latency->value() * 1e3) + " ms (" +
         std::to_string(e.of().low->value() * 1e3) + " to " + std::to_string(e.of().high->value() * 1e3) + "), " +
         e.of().bottleneck + ">";
}

void bind_estimate(nb::module_& m) {
  nb::class_<Estimate>(m, "Prediction", "One answer: value, interval, factors, memory, origin. Times in seconds.")
      .def_prop_ro(
          "status", [](const Estimate& e) { return status_name(e.of().status); }, "ok, does_not_fit or outside_range.")
      .def_prop_ro(
          "reason", [](const Estimate& e) { return e.of().reason; }, "Why there is no latency; empty if ok.")
      .def_prop_ro(
          "latency_s", [](const Estimate& e) { return seconds(e.of().latency); },
          "Seconds of the step; None unless the status is ok.")
      .def_prop_ro("latency_low_s", [](const Estimate& e) { return seconds(e.of().low); })
      .def_prop_ro("latency_high_s", [](const Estimate& e) { return seconds(e.of().high); })
      .def_prop_ro(
          "confidence_ratio", [](const Estimate& e) { return e.of().confidence_ratio; },
          "How often the interval from latency_low_s to latency_high_s contains a measurement.")
      .def_prop_ro(
          "tpot_s", &tpot_of,
          "Seconds of a token of a sequence that generates: the step, over the tokens it yields where some are "
          "guessed.")
      .def_prop_ro("throughput_tokens_per_s", [](const Estimate& e) { return e.of().throughput_tokens_per_s; })
      .def_prop_ro(
          "factors", &factors_of,
          "The four factors and compute: all_to_all_s, memory_bandwidth_s, routing_overhead_s, compute_s are "
          "shares of the latency in seconds; expert_parallel_efficiency_ratio is t(1) / (n t(n)) on n devices, "
          "None if unknown.")
      .def_prop_ro("memory", &memory_of, "Bytes on a rank.")
      .def_prop_ro("flops",
                   [](const Estimate& e) { return e.of().flops ? std::optional(e.of().flops->value()) : std::nullopt; })
      .def_prop_ro("total_parameters", [](const Estimate& e) { return e.of().total_parameters; })
      .def_prop_ro("active_parameters", [](const Estimate& e) { return e.of().active_parameters; })
      .def_prop_ro("bottleneck", [](const Estimate& e) { return e.of().bottleneck; })
      .def_prop_ro(
          "origin", [](const Estimate& e) { return std::string(to_string(e.of().origin)); },
          "The weakest origin of a number that was used: measured, interpolated, fitted, extrapolated, ...")
      .def_prop_ro("warnings", [](const Estimate& e) { return e.of().warnings; })
      .def("calls", &calls_of, "Kernel calls of a step of a CPU, each expert's GEMM one; None if unknown.")
      .def("to_text", &report_of, "The JSON of `moecast predict --format json`.")
      .def(
          "moved",
          [](const Estimate& e, double latency_s, double low_s, double high_s) {
            return moved(e, latency_s, low_s, high_s, Origin::fitted);
          },
          "latency_s"_a, "latency_low_s"_a, "latency_high_s"_a,
          "The same with a latency that was fitted to measurements; its factors and operators move in proportion.")
      .def_static("summed", &sum_of, "steps"_a, "sizes"_a,
                  "Steps one after another: pairs of a number of times and a Prediction. `sizes` are listed as inputs.")
      .def("__getstate__", [](const Estimate& e) { return std::make_tuple(report_of(e), tpot_of(e)); })
      .def("__setstate__",
           [](Estimate& e, const std::tuple<std::string, std::optional<double>>& state) {
             new (&e) Estimate(restored(std::get<0>(state), std::get<1>(state)));
           })
      .def("__repr__", &text_of);
}

}  // namespace

void bind_predictor(nb::module_& m) {
  bind_estimate(m);
  nb::class_<PredictorHandle>(m, "Predictor", "Predictions on one machine. Immutable: threads may share it.")
      .def(nb::init<const std::string&, const std::string&, const std::string&, std::int64_t, const std::string&,
                    const std::string&>(),
           "hw"_a, nb::kw_only(), "backend"_a = "", "dtype"_a = "", "threads"_a = 0, "strategy"_a = "",
           "engine"_a = "analytic", nb::call_guard<nb::gil_scoped_release>())
      .def("predict", &PredictorHandle::predict, "architecture"_a, nb::kw_only(), "phase"_a = "decode", "batch"_a = 1,
           "context"_a = 1024, "prompt"_a = 512, "source"_a = 0, "prefill_batch"_a = 0, "prefix"_a = 0, "copies"_a = 1,
           "load"_a = "", "seed"_a = 1, "rows"_a = std::vector<std::int64_t>(), "tp"_a = 1, "ep"_a = 1, "dp"_a = 1,
           "pp"_a = 1, "moe_tp"_a.none() = nb::none(), "cp"_a = 1, "micro_batches"_a.none() = nb::none(),
           "redundant_experts"_a = 0, "eager"_a = false, "draft_tokens"_a = 0, "acceptance"_a.none() = nb::none(),
           "kv_dtype"_a = "", "all_reduce"_a = "", "max_context"_a = 0, "without"_a = "", "rated"_a = true,
           nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("folder", [](const PredictorHandle& p) { return p.setting().hardware.folder; })
      .def_prop_ro("gpu", [](const PredictorHandle& p) { return p.setting().hardware.gpu; })
      .def_prop_ro("threads", [](const PredictorHandle& p) { return p.setting().deployment.threads; })
      .def_prop_ro(
          "backends",
          [](const PredictorHandle& p) {
            std::vector<std::pair<std::string, std::string>> out;
            const HardwareChoice& h = p.setting().hardware;
            for (std::size_t i = 0; i < h.backends.size(); ++i) {
              out.emplace_back(h.backends[i], std::string(to_string(h.dtypes[i])));
            }
            return out;
          },
          "Pairs of a backend and a dtype that the machine was profiled with; empty for a GPU.");
}

}  // namespace moecast::python
