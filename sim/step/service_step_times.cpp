#include "sim/step/service_step_times.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>
#include <utility>
#include <vector>

#include "sim/step/batch_overlap.h"
#include "sim/step/context_parallel.h"
#include "sim/step/stream_overlap.h"

namespace moecast {
namespace {

/// Knots of every axis: 0, 1, ... 16, then eight an octave.
constexpr std::size_t kExact = 16;
constexpr double kKnotsPerOctave = 8;
constexpr std::size_t kKnots = 256;

const std::array<double, kKnots>& knots() {
  static const std::array<double, kKnots> values = [] {
    std::array<double, kKnots> made{};
    for (std::size_t i = 0; i < kKnots; ++i) {
      made[i] = i <= kExact
                    ? static_cast<double>(i)
                    : static_cast<double>(kExact) * std::exp2(static_cast<double>(i - kExact) / kKnotsPerOctave);
    }
    return made;
  }();
  return values;
}

struct Place {
  std::size_t below = 0;
  double share = 0;  ///< of the knot above
};

Place place_of(double x) {
  if (x <= static_cast<double>(kExact)) {
    const double below = std::floor(std::max(0.0, x));
    return {static_cast<std::size_t>(below), std::max(0.0, x) - below};
  }
  const double exact = static_cast<double>(kExact) + kKnotsPerOctave * std::log2(x / static_cast<double>(kExact));
  const std::size_t below = std::min(kKnots - 2, static_cast<std::size_t>(exact));
  const double low = knots()[below];
  return {below, std::clamp((x - low) / (knots()[below + 1] - low), 0.0, 1.0)};
}

/// Multilinear interpolation over knots that are asked when they are first needed.
template <std::size_t kAxes>
class Grid {
 public:
  template <class Ask>
  StepTimes at(const std::array<double, kAxes>& x, const Ask& ask) {
    std::array<Place, kAxes> places;
    for (std::size_t a = 0; a < kAxes; ++a) places[a] = place_of(x[a]);
    StepTimes sum{};
    for (std::size_t corner = 0; corner < (std::size_t{1} << kAxes); ++corner) {
      double weight = 1;
      std::uint64_t key = 0;
      std::array<double, kAxes> knot{};
      for (std::size_t a = 0; a < kAxes; ++a) {
        const bool above = ((corner >> a) & 1U) != 0;
        weight *= above ? places[a].share : 1 - places[a].share;
        const std::size_t index = places[a].below + (above ? 1 : 0);
        key = key * kKnots + index;
        knot[a] = knots()[index];
      }
      if (weight == 0) continue;
      auto found = known_.find(key);
      if (found == known_.end()) found = known_.emplace(key, ask(knot)).first;
      for (std::size_t g = 0; g < sum.size(); ++g) sum[g] += weight * found->second[g];
    }
    return sum;
  }

 private:
  std::unordered_map<std::uint64_t, StepTimes> known_;
};

void add(StepTimes& all, const StepTimes& some) {
  for (std::size_t g = 0; g < all.size(); ++g) all[g] += some[g];
}

}  // namespace

class ServiceStepTimes::Grids {
 public:
  explicit Grids(const StepModel& model) : model_(model) {
    const StepOperators& all = model.operators();
    for (std::size_t i = 0; i < all.operators.size(); ++i) {
      if (all.operators[i].shares_context) {
        exchanges_.push_back(i);
        continue;
      }
      switch (all.operators[i].group) {
        case StepGroup::head: by_sequences_.push_back(i); break;
        case StepGroup::attention: (all.operators[i].limited ? limited_ : by_context_).push_back(i); break;
        case StepGroup::recurrent: recurrent_.push_back(i); break;
        default: by_rows_.push_back(i);
      }
    }
  }

  /// As StepModel::times.
  StepTimes times(const StepShape& shape) {
    StepTimes all = row_times(shape);
    add(all, ask(exchanges_, shape));
    const double dp = model_.deployment().dp;
    const double sequences = shape.decodes * shape.checked + shape.prompts;
    add(all, heads_.at({sequences}, [&](const auto& x) {
      StepShape asked;
      asked.rows = asked.decodes = x[0];
      asked.expert_rows = x[0] * dp;
      return ask(by_sequences_, asked);
    }));
    if (shape.decodes > 0) {
      add(all, decodes_.at({shape.decodes, shape.decode_kv}, [&](const auto& x) {
        StepShape asked;
        asked.decodes = x[0];
        asked.checked = checked_;
        asked.rows = x[0] * checked_;
        asked.decode_kv = x[1];
        StepTimes asked_times = ask(by_context_, asked);
        add(asked_times, ask(limited_, asked));
        return asked_times;
      }));
    }
    if (shape.prompts > 0) {
      add_prompts(shape, all);
    } else {
      add(all, recurrent_times(shape.rows));
    }
    return all;
  }

 private:
  [[nodiscard]] StepTimes ask(const std::vector<std::size_t>& chosen, const StepShape& shape) const {
    StepTimes times{};
    for (const std::size_t i : chosen) {
      const StepOperator& op = model_.operators().operators[i];
      times[static_cast<std::size_t>(op.group)] += op.count * op.seconds(shape);
    }
    return times;
  }

  [[nodiscard]] StepTimes rows_at(double rows, double expert_rows, bool prompts) const {
    StepShape asked;
    asked.rows = rows;
    (prompts ? asked.context : asked.decodes) = rows;
    asked.prompts = prompts ? 1 : 0;
    asked.expert_rows = expert_rows;
    StepTimes times = ask(by_rows_, asked);
    times[static_cast<std::size_t>(StepGroup::shared)] *= exposed_shared(model_.operators(), asked, times);
    return times;
  }

  /// Captured graphs are steps of a staircase: none is interpolated.
  StepTimes row_times(const StepShape& shape) {
    const std::vector<double>& graphs = model_.engine().graph_rows;
    const bool prompts = shape.prompts > 0;  // rows travel to experts in another way
    const std::size_t kind = prompts ? 1 : 0;
    const double all_ranks = shape.rows * model_.deployment().dp;
    if (!graphs.empty() && shape.rows <= graphs.back() && shape.expert_rows == all_ranks) {
      auto& captured = captured_[kind];
      auto found = captured.find(shape.rows);
      if (found == captured.end()) found = captured.emplace(shape.rows, rows_at(shape.rows, all_ranks, prompts)).first;
      return found->second;
    }
    return rows_[kind].at({shape.rows, shape.expert_rows}, [&](const auto& x) { return rows_at(x[0], x[1], prompts); });
  }

  void add_prompts(const StepShape& shape, StepTimes& all) {
    // Pairs of query and key, as a prompt without prefix has them.
    const double fresh = std::max(1.0, shape.context / shape.prompts);
    const double length = std::sqrt(fresh * fresh + 2 * fresh * shape.prefix / shape.prompts);
    add(all, prompts_.at({shape.prompts, length}, [&](const auto& x) {
      StepShape asked;
      asked.prompts = x[0];
      asked.context = asked.rows = x[0] * x[1];
      return ask(by_context_, asked);
    }));
    if (!limited_.empty()) {
      add(all, windows_.at({shape.prompts, fresh, shape.prefix / shape.prompts}, [&](const auto& x) {
        StepShape asked;
        asked.prompts = x[0];
        asked.context = asked.rows = x[0] * x[1];
        asked.prefix = x[0] * x[2];
        return ask(limited_, asked);
      }));
    }
    if (recurrent_.empty()) return;
    add(all, mixed_.at({shape.prompts, fresh, shape.decodes}, [&](const auto& x) {
      StepShape asked;
      asked.prompts = x[0];
      asked.context = x[0] * x[1];
      asked.decodes = x[2];
      asked.checked = checked_;
      asked.rows = new_tokens(asked);
      return ask(recurrent_, asked);
    }));
  }

  /// Recurrent layers of a step without prompts, which rows decide.
  StepTimes recurrent_times(double rows) {
    if (recurrent_.empty()) return {};
    auto found = recurrent_captured_.find(rows);
    if (found == recurrent_captured_.end()) {
      StepShape asked;
      asked.rows = asked.decodes = rows;
      found = recurrent_captured_.emplace(rows, ask(recurrent_, asked)).first;
    }
    return found->second;
  }

  const StepModel& model_;
  double checked_ = 1.0 + model_.deployment().draft_tokens;
  std::vector<std::size_t> by_rows_, by_sequences_, by_context_, limited_, recurrent_;
  std::vector<std::size_t> exchanges_;                             ///< cheap, and of too many quantities for a grid
  std::array<std::unordered_map<double, StepTimes>, 2> captured_;  ///< without and with prompts
  std::unordered_map<double, StepTimes> recurrent_captured_;
  Grid<1> heads_;
  std::array<Grid<2>, 2> rows_;  ///< without and with prompts
  Grid<2> decodes_, prompts_;
  Grid<3> mixed_, windows_;
};

ServiceStepTimes::ServiceStepTimes(std::shared_ptr<const StepModel> model, bool calibrated, StepLaw law,
                                   std::vector<StepFollower> followers)
    : model_(std::move(model)),
      calibrated_(calibrated),
      law_(law),
      grids_(std::make_unique<Grids>(*model_)),
      followers_(std::move(followers)) {
  for (const StepFollower& follower : followers_) follower_grids_.push_back(std::make_unique<Grids>(*follower.model));
}

ServiceStepTimes::~ServiceStepTimes() = default;

StepTimes ServiceStepTimes::times_of(const StepShape& shape) const {
  return overlapped_times(model_->operators(), shape, [this](const StepShape& part) { return grids_->times(part); });
}

/// Replayed with the step, so that the host adds nothing.
double ServiceStepTimes::follower_seconds(const StepShape& step) const {
  double seconds = 0;
  for (std::size_t i = 0; i < followers_.size(); ++i) {
    const StepFollower& follower = followers_[i];
    StepShape shape = step;
    if (!follower.first) {
      shape.decodes = step.decodes + step.prompts;
      const double prompts = step.prompts > 0 ? (step.prefix + step.context) : 0.0;
      shape.decode_kv = (step.decodes * step.decode_kv + prompts) / std::max(1.0, shape.decodes);
      shape.checked = 1;
      shape.context = shape.prompts = shape.prefix = 0;
      shape.rows = model_->padded(shape.decodes);
      shape.expert_rows = shape.rows * model_->deployment().dp;
    }
    const StepOperators& operators = follower.model->operators();
    const EngineSpec& engine = follower.model->engine();
    const double layer_s = law_ == StepLaw::service ? engine.service.layer_s : engine.host.layer_kernels_s;
    const double factor = law_ == StepLaw::service ? engine.service.kernel_factor : 1;
    seconds +=
        follower.times * (factor * sum(follower_grids_[i]->times(shape)) + layer_s * operators.launching_layers());
  }
  return seconds;
}

/// Without rows, which padding decides.
StepShape ServiceStepTimes::shape_of(const ServiceStep& step) const {
  const double dp = model_->deployment().dp;
  StepShape shape;
  shape.decodes = std::ceil(step.decodes / dp);
  shape.checked = 1.0 + model_->deployment().draft_tokens;
  shape.decode_kv = step.context;
  if (step.prompts == 0) return shape;
  // The fullest rank holds the others.
  shape.prompts = std::ceil(step.prompts / dp);
  const double share = shape.prompts / step.prompts;
  shape.context = std::max(step.longest_chunk, step.prefill_tokens * share);
  shape.prefix = step.prefix * share;
  return shape;
}

/// As context-parallel ranks share it.
StepShape ServiceStepTimes::share_of(const ServiceStep& step) const {
  return context_share(shape_of(step), model_->deployment().cp);
}

double ServiceStepTimes::rows(const ServiceStep& step) const { return model_->padded(new_tokens(share_of(step))); }

/// Beyond what measured services took, which replayed graphs: kernels launched one by one.
double ServiceStepTimes::eager_seconds(const StepShape& shape) const {
  if (!model_->deployment().eager) return 0;
  StepTerms terms;
  terms.tokens = new_tokens(shape);
  terms.kernels_s = sum(times_of(shape));
  terms.launch = model_->usual_launch_of(terms.tokens, shape.prompts > 0);
  const double usual = model_->cost(terms).seconds;
  terms.launch = StepLaunch::eager;
  return std::max(0.0, model_->cost(terms).seconds - usual);
}

/// The law of ServiceTimes, of one step: prompts take what they add to one that generates.
double ServiceStepTimes::service_seconds(const StepShape& shape, IntervalEnd end) const {
  const EngineSpec& engine = model_->engine();
  const EngineService& law = engine.service;
  const double dp = model_->deployment().dp;
  StepShape together = shape;
  together.rows = new_tokens(shape);
  double seconds = law.layer_s * model_->operators().launching_layers() + law.step_s + law.request_s * shape.decodes;
  double decodes_s = 0;
  if (shape.decodes > 0) {
    StepShape decodes = shape;
    decodes.context = decodes.prompts = decodes.prefix = 0;
    decodes.rows = new_tokens(decodes);
    decodes.expert_rows = decodes.rows * dp;
    decodes_s = sum(times_of(decodes));
    seconds += law.kernel_factor * decodes_s;
  }
  if (shape.prompts > 0) {
    StepShape prompts = shape;
    prompts.decodes = prompts.decode_kv = 0;
    prompts.rows = shape.context;
    prompts.expert_rows = shape.expert_rows - shape.decodes * shape.checked * dp;
    double added_s = sum(times_of(prompts));
    if (shape.decodes > 0 && engine.mixes_prompts) {
      added_s = std::clamp(sum(times_of(together)) - decodes_s, 0.0, added_s);
    }
    seconds += (shape.decodes > 0 ? law.stall_share : law.prefill_factor) * added_s;
  }
  seconds += follower_seconds(together) + eager_seconds(together);
  if (end == IntervalEnd::middle) return seconds;
  const double assumed = model_->assumed_s(together) / seconds;
  return seconds *
         std::exp(end == IntervalEnd::low ? -engine.tpot_interval[0] - assumed : engine.tpot_interval[1] + assumed);
}

double ServiceStepTimes::seconds(const ServiceStep& step, IntervalEnd end) const {
  const double dp = model_->deployment().dp;
  StepShape shape = share_of(step);
  if (law_ == StepLaw::service) {
    // Of an uneven step the fullest rank decides, all cp ranks of it together.
    const double prompts = shape.context * model_->deployment().cp;
    shape.expert_rows = shape.decodes * shape.checked * dp + std::max(prompts, step.prefill_tokens);
    return service_seconds(shape, end);
  }
  StepTerms terms;
  terms.tokens = new_tokens(shape);
  terms.launch = model_->launch_of(terms.tokens, step.prompts > 0);
  terms.after_idle = step.after_idle;
  shape.rows = model_->padded(terms.tokens);
  // Replayed graphs are padded to the fullest rank; eager kernels take the rows that there are.
  shape.expert_rows = terms.launch == StepLaunch::eager
                          ? std::max(shape.rows, step.decodes * shape.checked + step.prefill_tokens)
                          : std::max(shape.rows, new_tokens(shape_of(step))) * dp;
  const StepTimes times = times_of(shape);
  terms.kernels_s = sum(times);
  StepCost cost = model_->cost(terms);
  cost.seconds += follower_seconds(shape);
  if (end == IntervalEnd::middle) return cost.seconds;
  const EngineSpec& engine = model_->engine();
  const bool low = end == IntervalEnd::low;
  double half = model_->half_width(times, cost, terms.launch);
  if (!calibrated_) half = std::max(half, engine.tpot_interval[low ? 0 : 1]);
  half += model_->assumed_s(shape) / cost.seconds;
  return cost.seconds * std::exp(low ? -half : half);
}

}  // namespace moecast
