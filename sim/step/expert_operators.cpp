#include "sim/step/expert_operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "models/core/count.h"
#include "models/core/error.h"
#include "sim/cost/kernel/ready_kernel.h"
#include "sim/step/distinct_experts.h"
#include "sim/step/kernel_doubt.h"
#include "sim/step/usual_efficiency.h"

namespace moecast {
namespace {

/// Load law of the tables whose fullest rank is timed.
constexpr double kSkewedLoad = 1.01;
constexpr double kVerySkewedLoad = 1.2;
constexpr double kVerySkewedSigma = 1.3;

/// Time over that in bf16 from which a kernel of fewer bytes is suspect.
constexpr double kSuspectRatio = 1.5;

/// Experts of a layer whose routing is drawn token by token.
constexpr std::int64_t kMostDrawn = 1 << 16;

/// All of them, for which runs depends on the step.
std::string described(const std::vector<ReadyKernel>& kernels) {
  std::string text = kernels.front()->described();
  for (std::size_t i = 1; i < kernels.size(); ++i) {
    text += (i == 1 ? ", or where that is faster " : " or ") + kernels[i]->model.key.kernel;
  }
  return text;
}

class ExpertMaker {
 public:
  ExpertMaker(const ExpertCall& call, const Deployment& deployment, const KernelCalibration& calibration)
      : call_(call), ep_(deployment.ep), moe_tp_(expert_tensor_ranks(deployment)), calibration_(calibration) {
    const int copies = deployment.redundant_experts;
    if (!call.placed) static_cast<void>(divide_over(call.count, ep_, "experts", "ep"));
    static_cast<void>(divide_over(call.expert.width, moe_tp_, "expert width", "moe_tp"));
    places_ = call.count + copies;
  }

  StepOperator make(std::vector<std::string>& notes) {
    if (call_.dispatched && call_.loads.empty()) {
      if (std::optional<StepOperator> behind = behind_dispatch(notes)) return std::move(*behind);
    }
    const KernelRowValues even = even_row();
    const std::vector<ReadyKernel> few = find_some(even, notes);
    if (few.empty()) return of_physics();
    if (const std::string guess = few.front()->guess(); !guess.empty()) notes.push_back("experts: " + guess);
    note_slower_than_bf16(few, even, notes);
    StepOperator made{call_.name, described(few), StepGroup::experts, call_.layers * call_.expert.depth, {}};
    made.seconds = !call_.loads.empty() ? of_exact_rows(few, even)
                   : call_.dispatched   ? of_arrived_rows(few, even)
                                        : of_all_rows(few, even);
    made.work = call_.loads.empty() ? work() : exact_work();
    doubt_far_kernel(*few.front(), KernelRowValues(even).set("num_tokens", kUsualRows), made, notes);
    if (stand_in_) doubt_stand_in(made);
    return made;
  }

  [[nodiscard]] std::string kernel() {
    std::vector<std::string> notes;
    const std::vector<ReadyKernel> found = find_some(even_row(), notes);
    return found.empty() ? std::string() : found.front()->model.key.kernel;
  }

  /// nullopt where the machine has no expert kernel.
  std::optional<WholeLayerExperts> whole_layer(std::vector<std::string>& notes) {
    const KernelRowValues even = even_row();
    std::vector<ReadyKernel> few = find_some(even, notes);
    if (few.empty()) return std::nullopt;
    if (const std::string guess = few.front()->guess(); !guess.empty()) notes.push_back("experts: " + guess);
    return law(std::move(few), even);
  }

 private:
  [[nodiscard]] std::function<StepWork(const StepShape&)> work() const {
    return [distinct = distinct_experts(), share = call_.share, rows_per_token = value(call_.top_k) / ep_ + shared(),
            shared = shared(),
            weights = value(call_.expert.gated ? 3 : 2) * value(call_.width) * value(call_.expert.width) / moe_tp_,
            bytes = bytes_per_weight(call_.dtype)](const StepShape& shape) {
      const double rows = share * shape.expert_rows;
      return StepWork{bytes * (distinct(rows) + shared) * weights, 2 * rows * rows_per_token * weights};
    };
  }

  /// Narrower weights are fewer bytes: where tables say that they take longer, the kernel that was timed is at fault,
  /// and a server may well run another.
  void note_slower_than_bf16(const std::vector<ReadyKernel>& kernels, const KernelRowValues& even,
                             std::vector<std::string>& notes) const {
    if (kernels.front()->model.key.dtype == "bfloat16") return;
    KernelWanted wanted{"moe", "", "", call_.framework, call_.version, {"bfloat16"}, true};
    const std::vector<ReadyKernel> wide = find_ready_kernels(calibration_, wanted, even);
    if (wide.empty() || wide.front()->model.key.framework != kernels.front()->model.key.framework) return;
    KernelRowValues asked = even;
    asked.set("num_tokens", kUsualRows);
    const double ratio = fastest(kernels, asked, std::nullopt) / fastest(wide, asked, std::nullopt);
    if (ratio < kSuspectRatio) return;
    notes.push_back(
        fmt::format("experts: at {:.0f} tokens the tables' {} kernel takes {:.1f} times as long as that in bf16; a "
                    "server may run a "
                    "better one",
                    kUsualRows, kernels.front()->model.key.dtype, ratio));
  }

  /// On a machine of which no expert kernel is known: the busiest rank's bytes and arithmetic.
  [[nodiscard]] StepOperator of_physics() const {
    StepOperator made{call_.name, "physics", StepGroup::experts, call_.layers * call_.expert.depth, {}};
    made.work = call_.loads.empty() ? work() : exact_work();
    made.seconds = [work = made.work, device = calibration_.device](const StepShape& shape) {
      return kUnknownKernel.seconds(work(shape), device);
    };
    made.spread = kUnknownKernel.spread;
    made.origin = Origin::assumed;
    return made;
  }

  /// The kernels that run behind DeepEP's dispatch where they were measured on such a shape: over padded rows in steps
  /// that only generate, else over those that arrived.
  [[nodiscard]] std::optional<StepOperator> behind_dispatch(std::vector<std::string>& notes) const {
    std::array<ReadyKernel, 2> kernels;
    std::array<KernelRowValues, 2> asked{KernelRowValues(*find_kernel_layout("wideep_generation_moe")),
                                         KernelRowValues(*find_kernel_layout("wideep_context_moe"))};
    for (const std::size_t prompts : {std::size_t{0}, std::size_t{1}}) {
      KernelRowValues& row = asked[prompts];
      row.set("num_tokens", 1).set("hidden_size", value(call_.width)).set("inter_size", value(call_.expert.width));
      row.set(kMatricesColumn, call_.expert.gated ? 3 : 2).set(kDistributionColumn, 0).set("moe_tp_size", moe_tp_);
      row = over_ranks(row);
      const std::string_view layout = prompts ? "wideep_context_moe" : "wideep_generation_moe";
      kernels[prompts] =
          find_ready_kernel(calibration_, {layout, "", "", "sglang", call_.version, table_formats(call_.dtype)}, row);
      if (!kernels[prompts] || kernels[prompts]->compiled.sigma() > kNearShape) return std::nullopt;
    }
    for (const ReadyKernel& kernel : kernels) {
      if (const std::string guess = kernel->guess(); !guess.empty()) notes.push_back("experts: " + guess);
    }
    StepOperator made{call_.name,
                      fmt::format("{}, with prompts {}", kernels[0]->described(), kernels[1]->described()),
                      StepGroup::experts,
                      call_.layers * call_.expert.depth,
                      {}};
    made.seconds = [kernels, asked, placed = call_.placed, share = call_.share,
                    tokens_at =
                        find_kernel_layout("wideep_context_moe")->column("num_tokens")](const StepShape& shape) {
      const double tokens = std::max(1.0, share * shape.expert_rows);
      const std::size_t prompts = shape.prompts > 0 ? 1 : 0;
      KernelRowValues row = asked[prompts];
      return kernels[prompts]->seconds(row.set(tokens_at, tokens), placed->at(tokens));
    };
    made.work = work();
    return made;
  }

  /// Experts chosen alike. Behind a dispatch a kernel sees the rows that arrived: those of a layer of the rank's own
  /// experts.
  [[nodiscard]] KernelRowValues even_row() const {
    KernelRowValues row(layout_);
    row.set("num_tokens", 1).set("hidden_size", value(call_.width)).set("inter_size", value(call_.expert.width));
    row.set(kMatricesColumn, call_.expert.gated ? 3 : 2).set(kDistributionColumn, 0).set("moe_tp_size", moe_tp_);
    if (call_.dispatched) {
      return row.set("topk", local_top_k()).set("num_experts", value(places_ / ep_)).set("moe_ep_size", 1);
    }
    return over_ranks(row);
  }

  /// Experts of all ranks, as tables have them. Ranks divide experts there; copies make up for those that do not.
  [[nodiscard]] KernelRowValues over_ranks(KernelRowValues row) const {
    const std::int64_t experts = call_.count % ep_ == 0 ? call_.count : places_;
    return row.set("topk", call_.top_k).set("num_experts", value(experts)).set("moe_ep_size", ep_);
  }

  [[nodiscard]] double shared() const { return value(call_.shared); }

  [[nodiscard]] double local_top_k() const { return value(std::min<std::int64_t>(call_.top_k, places_ / ep_)); }

  [[nodiscard]] std::vector<ReadyKernel> find_all(const KernelRowValues& row) const {
    KernelWanted wanted{"moe", "", "", call_.framework, call_.version, formats_, true};
    if (call_.dispatched) wanted.picked_by = over_ranks(row);
    return find_ready_kernels(calibration_, wanted, row);
  }

  /// Empty where the machine has no expert kernel at all.
  std::vector<ReadyKernel> find_some(const KernelRowValues& row, std::vector<std::string>& notes) {
    formats_ = table_formats(call_.dtype);
    if (std::vector<ReadyKernel> found = find_all(row); !found.empty()) return found;
    formats_ = {"bfloat16"};
    if (bytes_per_weight(call_.dtype) <= 1.5) formats_ = {"fp8_block", "fp8", "bfloat16"};
    std::vector<ReadyKernel> found = find_all(row);
    if (found.empty()) return found;
    notes.push_back(
        fmt::format("experts: no {} kernel, {} stands for it", to_string(call_.dtype), found.front()->model.key.dtype));
    stand_in_ = true;
    return found;
  }

  /// Experts that rows of all ranks touch on the rank that touches most.
  [[nodiscard]] std::function<double(double rows)> distinct_experts() const {
    if (call_.placed) return [placed = call_.placed](double rows) { return placed->at(rows).distinct; };
    if (call_.recorded && call_.fullest) {
      return [fullest = call_.fullest](double rows) { return fullest(rows).distinct; };
    }
    // More experts than are drawn: as many times fewer of them with as many times fewer tokens are chosen as often
    // each.
    const auto folds = static_cast<int>((call_.count + kMostDrawn - 1) / kMostDrawn);
    return [of_rank = DistinctExperts(static_cast<int>(call_.count / folds), call_.top_k, ep_, call_.sigma,
                                      folds == 1 ? call_.limit : GroupLimit{}),
            folds = static_cast<double>(folds)](double rows) {
      const double tokens = rows / folds;
      return folds * std::min(1.0, tokens) * of_rank.at(tokens);
    };
  }

  [[nodiscard]] std::function<double(const StepShape&)> of_arrived_rows(std::vector<ReadyKernel> kernels,
                                                                        const KernelRowValues& even) const {
    return [kernels = std::move(kernels), even, placed = call_.placed, share = call_.share, top_k = local_top_k(),
            tokens = layout_.column("num_tokens")](const StepShape& shape) {
      const RankLoad load = placed->at(std::max(1.0, share * shape.expert_rows));
      KernelRowValues asked = even;
      return fastest(kernels, asked.set(tokens, std::max(1.0, load.rows / top_k)), load);
    };
  }

  /// The slowest rank.
  [[nodiscard]] std::function<double(const StepShape&)> of_exact_rows(std::vector<ReadyKernel> kernels,
                                                                      const KernelRowValues& even) const {
    return [kernels = std::move(kernels), even, loads = call_.loads, arrived = call_.dispatched, top_k = local_top_k(),
            tokens = layout_.column("num_tokens")](const StepShape& shape) {
      double slowest = 0;
      for (const RankLoad& load : loads) {
        if (load.rows <= 0) continue;
        KernelRowValues asked = even;
        asked.set(tokens, std::max(1.0, arrived ? load.rows / top_k : shape.expert_rows));
        slowest = std::max(slowest, fastest(kernels, asked, load));
      }
      return slowest;
    };
  }

  [[nodiscard]] std::function<StepWork(const StepShape&)> exact_work() const {
    RankLoad most;
    for (const RankLoad& load : call_.loads) {
      if (load.rows > most.rows) most = load;
    }
    const double weights = value(call_.expert.gated ? 3 : 2) * value(call_.width) * value(call_.expert.width) / moe_tp_;
    return [work = StepWork{bytes_per_weight(call_.dtype) * most.distinct * weights, 2 * most.rows * weights}](
               const StepShape& /*shape*/) { return work; };
  }

  [[nodiscard]] WholeLayerExperts law(std::vector<ReadyKernel> few, const KernelRowValues& even) const {
    KernelRowValues skewed = even;
    if (call_.sigma > kEvenSigma) {
      skewed.set(kDistributionColumn, call_.sigma > kVerySkewedSigma ? kVerySkewedLoad : kSkewedLoad);
    }
    return {std::move(few), find_all(skewed), even, skewed, static_cast<double>(ep_) / call_.top_k};
  }

  [[nodiscard]] std::function<double(const StepShape&)> of_all_rows(std::vector<ReadyKernel> few,
                                                                    const KernelRowValues& even) const {
    std::function<RankLoad(double)> fullest = call_.fullest;
    if (call_.placed) fullest = [placed = call_.placed](double rows) { return placed->at(rows); };
    return [law = law(std::move(few), even), fullest = std::move(fullest), distinct = distinct_experts(),
            part = call_.share, shared = shared(), more = 1 + shared() / call_.top_k](const StepShape& shape) {
      const double rows = std::max(1.0, part * shape.expert_rows);
      std::optional<RankLoad> load;
      if (fullest) load = fullest(rows);
      if (load && shared > 0) {
        load->rows += shared * rows;
        load->distinct += shared;
        load->fullest = std::max(load->fullest, rows);
      }
      return law.seconds(more * rows, distinct(rows) + shared, load);
    };
  }

  const ExpertCall& call_;
  int ep_;
  int moe_tp_;
  const KernelCalibration& calibration_;
  const KernelLayout& layout_ = *find_kernel_layout("moe");
  std::int64_t places_ = 0;  ///< experts and their copies
  std::vector<std::string> formats_;
  bool stand_in_ = false;  ///< kernels of another format
};

}  // namespace

std::int64_t divide_over(std::int64_t what, int ranks, const std::string& name, const std::string& degree) {
  if (what % ranks != 0) {
    throw InputError(degree, fmt::format("{} ranks do not divide {} = {}", ranks, name, what),
                     "choose a degree that divides it");
  }
  return what / ranks;
}

void add_experts(const ExpertCall& call, const Deployment& deployment, const KernelCalibration& calibration,
                 StepOperators& operators) {
  operators.operators.push_back(ExpertMaker(call, deployment, calibration).make(operators.notes));
}

std::string expert_kernel(const ExpertCall& call, const Deployment& deployment, const KernelCalibration& calibration) {
  return ExpertMaker(call, deployment, calibration).kernel();
}

std::optional<WholeLayerExperts> whole_layer_experts(const ExpertCall& call, const Deployment& deployment,
                                                     const KernelCalibration& calibration,
                                                     std::vector<std::string>& notes) {
  return ExpertMaker(call, deployment, calibration).whole_layer(notes);
}

}  // namespace moecast
