#include "sim/step/operator_maker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "models/core/count.h"
#include "models/core/error.h"
#include "sim/step/collective_cost.h"
#include "sim/step/expert_operators.h"
#include "sim/step/kernel_doubt.h"

namespace moecast {
namespace {

void add_once(std::vector<std::string>& texts, const std::string& text) {
  if (std::ranges::find(texts, text) == texts.end()) texts.push_back(text);
}

}  // namespace

double rows_of(StepRows rows, const StepShape& shape) {
  switch (rows) {
    case StepRows::tokens: return shape.rows;
    case StepRows::sequences: return shape.decodes * shape.checked + shape.prompts;
    case StepRows::encoded: return shape.prompts * shape.source;
  }
  return shape.rows;
}

OperatorMaker::OperatorMaker(const Architecture& model, const Deployment& ranks, const EngineSpec& spec,
                             const KernelCalibration& kernels)
    : architecture(model), deployment(ranks), engine(spec), calibration(kernels) {
  std::tie(framework, version) = split_backend(deployment.backend);
  if (framework.empty()) framework = engine.name;
  dtype = deployment.dtype.value_or(architecture.dtype);
  result.hidden = value(architecture.hidden);
}

StepOperator& OperatorMaker::add(std::string name, std::string kernel, StepGroup group, double count,
                                 std::function<double(const StepShape&)> seconds) {
  result.operators.push_back({std::move(name), std::move(kernel), group, count, std::move(seconds)});
  return result.operators.back();
}

ReadyKernel OperatorMaker::find(std::string_view layout, std::string_view part, std::vector<std::string> formats,
                                const KernelRowValues& row) const {
  return find_ready_kernel(calibration, {layout, part, "", framework, version, std::move(formats), true}, row);
}

ReadyKernel OperatorMaker::find_first(std::string_view layout, std::initializer_list<std::string_view> parts,
                                      const KernelRowValues& row) const {
  for (const std::string_view part : parts) {
    ReadyKernel kernel = find(layout, part, {}, row);
    if (kernel && kernel->substitution.empty()) return kernel;
  }
  for (const std::string_view part : parts) {
    if (ReadyKernel kernel = find(layout, part, {}, row)) return kernel;
  }
  return nullptr;
}

LinearLayer OperatorMaker::gemm_kernel(const std::string& name, std::int64_t n, std::int64_t k, DType wanted) {
  LinearLayer layer = find_linear_layer(calibration, {framework, version, engine.fp8_inputs}, n, k, wanted);
  if (layer.in_bf16) note(fmt::format("{}: no {} kernel, bf16 stands for it", name, to_string(wanted)));
  return layer;
}

void OperatorMaker::add_gemm(const std::string& name, StepGroup group, std::int64_t n, std::int64_t k, double count,
                             StepRows rows, std::optional<DType> wanted) {
  const DType format = wanted.value_or(dtype);
  LinearLayer gemm = gemm_kernel(name, n, k, format);
  StepOperator& made = add(name, std::move(gemm.kernel), group, count,
                           [seconds = std::move(gemm.seconds), rows](const StepShape& shape) {
                             const double done = rows_of(rows, shape);
                             // Encoded before: its keys and values are kept.
                             return rows == StepRows::encoded && done == 0 ? 0.0 : seconds(done);
                           });
  if (gemm.known) {
    doubt_far_kernel(*gemm.known, gemm.row.set("m", kUsualRows), made, result.notes);
  } else {
    made.spread = kUnknownKernel.spread;
    made.origin = Origin::assumed;
  }
  if (gemm.in_bf16) doubt_stand_in(made);
  made.work = [rows, wide = value(n), deep = value(k), weight = bytes_per_weight(format)](const StepShape& shape) {
    const double done = rows_of(rows, shape);
    if (done == 0) return StepWork{};
    return StepWork{weight * wide * deep + kActivationBytes * done * (wide + deep), 2 * done * wide * deep};
  };
}

void OperatorMaker::add_physics(std::string name, StepGroup group, double count, const UsualEfficiency& usual,
                                std::function<StepWork(const StepShape&)> work) {
  StepOperator& made =
      add(std::move(name), "physics", group, count, [work, usual, device = calibration.device](const StepShape& shape) {
        return usual.seconds(work(shape), device);
      });
  made.spread = usual.spread;
  made.origin = Origin::assumed;
  made.work = std::move(work);
}

void OperatorMaker::refuse(const std::string& what) { add_once(result.not_executed, what); }

void OperatorMaker::note(const std::string& text) { add_once(result.notes, text); }

std::int64_t OperatorMaker::of_rank(std::int64_t what, const std::string& name) const {
  return divide_over(what, deployment.tp, name, "tp");
}

}  // namespace moecast
