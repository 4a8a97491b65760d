#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <limits>
#include <mutex>
#include <optional>
#include <shared_mutex>

#include "hwprofiles/profile.h"
#include "models/core/error.h"
#include "sim/analytic/moe_batch.h"
#include "sim/analytic/moe_footprint.h"
#include "sim/analytic/stack_batch.h"
#include "tools/cli/query_options.h"
#include "tools/python/bindings/bindings.h"
#include "tools/python/bindings/questions.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace moecast::python {
namespace {

template <class T>
using Column = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class T>
std::span<const T> span_of(const Column<T>& column) {
  return {column.data(), column.size()};
}

/// A new NumPy array and a view of it.
template <class T>
class Result {
 public:
  explicit Result(std::size_t size) : values_(std::make_unique<T[]>(size)), size_(size) {}
  [[nodiscard]] std::span<T> span() { return {values_.get(), size_}; }
  nb::object release() {
    T* const data = values_.release();
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {size_}, owner));
  }

 private:
  std::unique_ptr<T[]> values_;
  std::size_t size_;
};

[[noreturn]] void lost_load() {
  throw InputError("load", "was lost while it was prepared", "this is a defect: report it");
}

/// MoE layers of one machine, many at a time.
class LayerBatch {
 public:
  LayerBatch(const std::string& hw, const std::string& backend, const std::string& dtype, std::int64_t threads,
             const std::string& strategy, const std::vector<std::string>& loads, std::uint64_t seed)
      : machine_(make_machine(hw, backend, dtype, threads, strategy)),
        batch_(read_calibration(machine_.folder), machine_.deployment, parse_loads(loads, seed)) {}

  nb::dict predict(const Column<std::int32_t>& hidden, const Column<std::int32_t>& width,
                   const Column<std::int32_t>& experts, const Column<std::int32_t>& top_k,
                   const Column<std::int32_t>& tokens, const Column<std::uint8_t>& gated,
                   const Column<float>& capacity_factor, const Column<std::int32_t>& copies,
                   const Column<std::int32_t>& load) {
    const MoeColumns layers{span_of(hidden),          span_of(width),  span_of(experts),
                            span_of(top_k),           span_of(tokens), span_of(gated),
                            span_of(capacity_factor), span_of(copies), span_of(load)};
    const std::size_t n = layers.size();
    Result<double> latency(n), low(n), high(n), memory(n), compute(n), routing(n), held(n), parameters(n);
    Result<std::uint8_t> status(n), extrapolated(n);
    {
      const nb::gil_scoped_release free;
      const MoeTimes times{latency.span(), low.span(),     high.span(),        memory.span(),
                           compute.span(), routing.span(), extrapolated.span()};
      run(layers, times);
      for (std::size_t row = 0; row < n; ++row) {
        const MoeFootprint footprint = moe_footprint(layers, row, *machine_.deployment.dtype);
        held.span()[row] = footprint.memory_bytes;
        parameters.span()[row] = footprint.parameters;
        status.span()[row] = fits(footprint) ? 0 : 1;
        if (status.span()[row] != 0) forget(times, row);
      }
    }
    nb::dict out;
    out["latency_s"] = latency.release();
    out["latency_low_s"] = low.release();
    out["latency_high_s"] = high.release();
    out["memory_bandwidth_s"] = memory.release();
    out["compute_s"] = compute.release();
    out["routing_overhead_s"] = routing.release();
    out["memory_bytes"] = held.release();
    out["total_parameters"] = parameters.release();
    out["status"] = status.release();
    out["extrapolated"] = extrapolated.release();
    return out;
  }

  nb::tuple one(std::int32_t hidden, std::int32_t width, std::int32_t experts, std::int32_t top_k, std::int32_t tokens,
                bool gated, float capacity_factor, std::int32_t copies, std::int32_t load) {
    const auto gate = static_cast<std::uint8_t>(gated);
    double latency = 0, low = 0, high = 0;
    const MoeColumns layer{{&hidden, 1}, {&width, 1},           {&experts, 1}, {&top_k, 1}, {&tokens, 1},
                           {&gate, 1},   {&capacity_factor, 1}, {&copies, 1},  {&load, 1}};
    const MoeTimes times{{&latency, 1}, {&low, 1}, {&high, 1}, {}, {}, {}, {}};
    run(layer, times);
    if (!fits(moe_footprint(layer, 0, *machine_.deployment.dtype))) forget(times, 0);
    return nb::make_tuple(latency, low, high);
  }

 private:
  struct Machine {
    std::string folder;
    Deployment deployment;                 ///< with a backend and a dtype
    std::optional<Bytes> memory_capacity;  ///< nullopt = the profile does not know
  };

  static Machine make_machine(const std::string& hw, const std::string& backend, const std::string& dtype,
                              std::int64_t threads, const std::string& strategy) {
    const Setting setting = make_setting(hw, backend, dtype, threads, strategy);
    if (setting.hardware.gpu) {
      throw UsageError("hw", "columns of layers are answered for CPUs", "Predictor.predict answers layers of GPUs");
    }
    Machine machine{setting.hardware.folder, setting.deployment, {}};
    Deployment& d = machine.deployment;
    for (std::size_t i = 0; i < setting.hardware.backends.size(); ++i) {
      if (!d.backend.empty() && setting.hardware.backends[i] != d.backend) continue;
      if (d.dtype && setting.hardware.dtypes[i] != *d.dtype) continue;
      d.backend = setting.hardware.backends[i];
      d.dtype = setting.hardware.dtypes[i];
      break;
    }
    const Profile profile = read_profile(machine.folder);
    const HardwareQuantity* const known = profile.find("memory_capacity");
    if (known != nullptr) machine.memory_capacity = Bytes(known->value);
    return machine;
  }

  static std::vector<ExpertLoad> parse_loads(const std::vector<std::string>& names, std::uint64_t seed) {
    std::vector<ExpertLoad> loads;
    for (const std::string& name : names) loads.push_back(parse_load(name, seed));
    if (loads.empty()) throw UsageError("loads", "is empty", "write e.g. [\"uniform\"]");
    return loads;
  }

  [[nodiscard]] bool fits(const MoeFootprint& footprint) const {
    return !machine_.memory_capacity || footprint.memory_bytes <= machine_.memory_capacity->value();
  }

  /// A layer that does not fit has no times.
  static void forget(const MoeTimes& times, std::size_t row) {
    for (const std::span<double>& column : {times.latency_s, times.low_s, times.high_s, times.memory_bandwidth_s,
                                            times.compute_s, times.routing_overhead_s}) {
      if (!column.empty()) column[row] = std::numeric_limits<double>::quiet_NaN();
    }
  }

  /// Checks the columns; loads, expert counts and top-k that nobody asked before are learnt.
  void run(const MoeColumns& layers, const MoeTimes& times) {
    {
      const std::unique_lock lock(mutex_);
      batch_.prepare(layers);
    }
    const std::shared_lock lock(mutex_);
    if (!batch_.predict(layers, times)) lost_load();
  }

  Machine machine_;
  std::shared_mutex mutex_;
  MoeBatch batch_;
};

/// Whole models of one machine and one workload, many at a time.
class ModelBatch {
 public:
  ModelBatch(const std::string& hw, const std::string& backend, const std::string& dtype, std::int64_t threads,
             const std::string& strategy, const std::string& phase, std::int64_t batch, std::int64_t context,
             std::int64_t prompt, std::int64_t source, std::int64_t prefill_batch, std::int64_t prefix,
             const std::string& load, std::uint64_t seed) {
    Setting setting = make_setting(hw, backend, dtype, threads, strategy);
    if (setting.hardware.gpu) {
      throw UsageError("hw", "batches of whole models are answered for CPUs", "Predictor.predict answers GPUs");
    }
    batch_ = StackBatch::load(
        setting.hardware.folder, setting.deployment,
        make_workload(phase, batch, context, prompt, source, prefill_batch, prefix, 1, load, seed, {}));
  }

  std::vector<std::int32_t> parts_of(const Architecture& architecture) {
    const std::unique_lock lock(mutex_);
    return batch_->parts_of(architecture);
  }

  std::int32_t stacked(const std::vector<std::int32_t>& layers) {
    const std::unique_lock lock(mutex_);
    return batch_->stacked(layers);
  }

  std::string problem(std::int32_t part) {
    const std::shared_lock lock(mutex_);
    if (part < 0 || static_cast<std::size_t>(part) >= batch_->part_count()) {
      throw InputError("part", std::to_string(part) + " is the number of no part", "numbers come from parts_of");
    }
    return batch_->problem(part);
  }

  nb::dict predict(const Table& parts) {
    const StackRows rows{{parts.data(), parts.size()}, parts.shape(1)};
    const std::size_t n = parts.shape(0);
    if (rows.width == 0) throw InputError("parts", "has no columns", "give an array of shape [models, parts]");
    Result<double> latency(n), low(n), high(n), memory_s(n), compute(n), routing(n), memory(n), total(n), active(n),
        flops(n), calls(n);
    Result<std::uint8_t> status(n), extrapolated(n);
    {
      const nb::gil_scoped_release free;
      run(rows,
          {latency.span(), low.span(), high.span(), memory_s.span(), compute.span(), routing.span(), memory.span(),
           total.span(), active.span(), flops.span(), calls.span(), status.span(), extrapolated.span()});
    }
    nb::dict out;
    out["latency_s"] = latency.release();
    out["latency_low_s"] = low.release();
    out["latency_high_s"] = high.release();
    out["memory_bandwidth_s"] = memory_s.release();
    out["compute_s"] = compute.release();
    out["routing_overhead_s"] = routing.release();
    out["memory_bytes"] = memory.release();
    out["total_parameters"] = total.release();
    out["active_parameters"] = active.release();
    out["flops"] = flops.release();
    out["calls"] = calls.release();
    out["status"] = status.release();
    out["extrapolated"] = extrapolated.release();
    return out;
  }

  nb::tuple one(const std::vector<std::int32_t>& parts) {
    double latency = 0, low = 0, high = 0;
    StackTimes times;
    times.latency_s = {&latency, 1};
    times.low_s = {&low, 1};
    times.high_s = {&high, 1};
    run({parts, parts.size()}, times);
    return nb::make_tuple(latency, low, high);
  }

 private:
  void run(const StackRows& rows, const StackTimes& times) {
    {
      const std::shared_lock lock(mutex_);
      if (batch_->predict(rows, times)) return;
    }
    const std::unique_lock lock(mutex_);
    batch_->prepare(rows);
    if (!batch_->predict(rows, times)) lost_load();
  }

  std::shared_mutex mutex_;
  std::unique_ptr<StackBatch> batch_;
};

}  // namespace

void bind_batches(nb::module_& m) {
  nb::class_<LayerBatch>(m, "LayerBatch", "MoE layers of a CPU as columns: a million a second.")
      .def(nb::init<const std::string&, const std::string&, const std::string&, std::int64_t, const std::string&,
                    const std::vector<std::string>&, std::uint64_t>(),
           "hw"_a, nb::kw_only(), "backend"_a = "", "dtype"_a = "", "threads"_a = 0, "strategy"_a = "",
           "loads"_a = std::vector<std::string>{"uniform"}, "seed"_a = 1, nb::call_guard<nb::gil_scoped_release>())
      .def("predict", &LayerBatch::predict, "hidden"_a, "width"_a, "experts"_a, "top_k"_a, "tokens"_a, "gated"_a,
           "capacity_factor"_a, "copies"_a, "load"_a,
           "Columns of equal length (int32; gated uint8; capacity_factor float32, infinite = none; gated, "
           "capacity_factor, copies and load may be empty). Returns a dict of columns: times in seconds, NaN where "
           "status "
           "(0 ok, 1 does_not_fit) is not 0.")
      .def("one", &LayerBatch::one, "hidden"_a, "width"_a, "experts"_a, "top_k"_a, "tokens"_a, "gated"_a = true,
           "capacity_factor"_a = std::numeric_limits<float>::infinity(), "copies"_a = 1, "load"_a = 0,
           "(latency, low, high) of one layer in seconds; NaN where it does not fit.");
  nb::class_<ModelBatch>(m, "ModelBatch", "Steps of whole models of a CPU that share layers: 100 k/s.")
      .def(nb::init<const std::string&, const std::string&, const std::string&, std::int64_t, const std::string&,
                    const std::string&, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                    std::int64_t, const std::string&, std::uint64_t>(),
           "hw"_a, nb::kw_only(), "backend"_a = "", "dtype"_a = "", "threads"_a = 0, "strategy"_a = "",
           "phase"_a = "decode", "batch"_a = 1, "context"_a = 1024, "prompt"_a = 512, "source"_a = 0,
           "prefill_batch"_a = 0, "prefix"_a = 0, "load"_a = "uniform", "seed"_a = 1,
           nb::call_guard<nb::gil_scoped_release>())
      .def("parts_of", &ModelBatch::parts_of, "architecture"_a, nb::call_guard<nb::gil_scoped_release>(),
           "Numbers of the parts (embedding, layers, head) that make up the model.")
      .def("stacked", &ModelBatch::stacked, "layers"_a,
           "The part of a layer whose blocks are those of the given layers, one after another.")
      .def("problem", &ModelBatch::problem, "part"_a, "Why a part cannot be timed; empty = it can.")
      .def("predict", &ModelBatch::predict, "parts"_a,
           "int32 array of shape [models, parts], -1 = nothing there. Returns a dict of columns: times in seconds, NaN "
           "where status (0 ok, 1 does_not_fit, 2 outside_range) is not 0.")
      .def("one", &ModelBatch::one, "parts"_a, "(latency, low, high) of one model in seconds.");
}

}  // namespace moecast::python
