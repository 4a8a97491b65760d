#include "tools/loop/validate_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "models/core/error.h"
#include "models/core/statistics.h"
#include "sim/cost/kernel/few_samples.h"
#include "sim/cost/kernel/kernel_fit.h"

namespace moecast {
namespace {

/// Rows whose outcome is known, with the names of the strata that they belong to.
class Strata {
 public:
  void add(const std::string& name, const Outcome& outcome) {
    const auto [found, fresh] = index_.emplace(name, outcomes_.size());
    if (fresh) {
      names_.push_back(name);
      outcomes_.emplace_back();
    }
    outcomes_[found->second].push_back(outcome);
  }
  /// "all" first, then by kind of stratum in a fixed order, each sorted.
  [[nodiscard]] std::vector<KernelStratum> summaries() const {
    std::vector<KernelStratum> strata;
    for (std::size_t i = 0; i < names_.size(); ++i) {
      if (auto summary = summarise_errors(outcomes_[i])) strata.push_back({names_[i], *summary});
    }
    const auto rank = [](const std::string& name) {
      constexpr std::array<std::string_view, 9> kOrder{"all",  "dtype", "kernel", "load", "tokens",
                                                       "rows", "tp",    "ep",     "shape"};
      const auto found = std::find(kOrder.begin(), kOrder.end(), name.substr(0, name.find(' ')));
      return found - kOrder.begin();
    };
    std::stable_sort(strata.begin(), strata.end(), [&](const KernelStratum& a, const KernelStratum& b) {
      return rank(a.name) != rank(b.name) ? rank(a.name) < rank(b.name) : a.name < b.name;
    });
    return strata;
  }

 private:
  std::map<std::string, std::size_t> index_;
  std::vector<std::string> names_;
  std::vector<std::vector<Outcome>> outcomes_;
};

class Validator {
 public:
  explicit Validator(const KernelValidation& request) : request_(request) {}

  KernelValidationReport run() {
    const Profile profile = read_profile(request_.folder);
    KernelTable table = read_kernel_table(request_.table, request_.layout, request_.framework, request_.version);
    report_.table = std::move(table.report);
    if (request_.leave_out.empty()) {
      calibration_ = read_kernel_calibration(request_.folder, profile.name);
      profile_samples_ = read_kernel_samples(request_.folder);
    } else {
      calibration_.device = device_limits(profile);
      if (request_.leave_out == "machine") {
        sister_ = read_kernel_calibration(request_.sister, read_profile(request_.sister).name);
      }
    }
    std::size_t all = 0;
    for (const KernelSamples& samples : table.kernels) all += samples.size();
    std::size_t done = 0;
    for (const KernelSamples& samples : table.kernels) {
      judge(samples);
      done += samples.size();
      if (request_.progress) request_.progress(static_cast<double>(done) / static_cast<double>(all));
    }
    report_.strata = strata_.summaries();
    return std::move(report_);
  }

 private:
  void judge(const KernelSamples& samples) {
    std::string reason;
    const auto law = make_kernel_law(samples.key, calibration_.device, &reason);
    if (law == nullptr) {
      report_.not_judged[reason] += static_cast<std::int64_t>(samples.size());
      return;
    }
    const RowFilter filter = filter_rows(samples, *law, loads_);
    std::vector<std::size_t> rows;
    for (std::size_t row = 0; row < samples.size(); ++row) {
      if (filter.reason[row] < 0) {
        rows.push_back(row);
      } else {
        ++report_.not_judged[filter.reasons[static_cast<std::size_t>(filter.reason[row])]];
      }
    }
    if (rows.empty()) return;
    const KernelSamples kept = pick_rows(samples, rows);
    if (request_.leave_out.empty()) {
      predict(kept, *law);
    } else if (request_.leave_out == "machine") {
      leave_machine_out(kept, law);
    } else {
      cross_validate(kept, *law);
    }
  }

  /// Every row from the profile's calibration.
  void predict(const KernelSamples& samples, const KernelLaw& law) {
    const KernelCalibration::Choice choice = calibration_.choose(samples.key);
    if (choice.model == nullptr) {
      report_.not_judged["the profile holds no kernel of " + samples.key.layout] +=
          static_cast<std::int64_t>(samples.size());
      return;
    }
    if (!choice.substitution.empty()) {
      report_.notes.push_back(samples.key.text() + ": never measured; stands for it: " + choice.substitution);
    }
    const KernelModel model = choice.stand_in(samples.key, calibration_.device);
    const KernelData data = make_kernel_data(samples, law, loads_);
    set_baselines(choice.model->key, law);
    CompiledKernel::Workspace workspace;
    std::vector<double> values;
    for (const std::vector<std::size_t>& curve : data.curves) {
      samples.row(curve.front(), values);
      const CompiledKernel compiled(model, values, workspace);
      const Eigen::Index nearest = nearest_curve(model, values);
      for (const std::size_t row : curve) {
        samples.row(row, values);
        const CompiledKernel::Answer answer = compiled.at({values}, loads_);
        Outcome outcome;
        outcome.predicted_s = std::exp(answer.log_seconds);
        outcome.low_s = std::exp(answer.log_low);
        outcome.high_s = std::exp(answer.log_high);
        outcome.measured_s = samples.latency_s[row];
        outcome.roofline_s = roofline(law, data, row);
        outcome.nearest_s = nearest_value(nearest, data, row);
        add(samples, row, law, outcome);
      }
    }
  }

  /// A few random rows, and the sister machine; the rest is predicted.
  void leave_machine_out(const KernelSamples& samples, const std::shared_ptr<const KernelLaw>& law) {
    const KernelModel* sister = find_sister_kernel(sister_, samples.key);
    if (sister == nullptr) {
      report_.not_judged["kernels that the sister machine lacks"] += static_cast<std::int64_t>(samples.size());
      return;
    }
    std::mt19937_64 random(request_.seed);
    std::vector<std::size_t> rows(samples.size());
    std::iota(rows.begin(), rows.end(), std::size_t{0});
    const std::size_t known = std::min(rows.size() / 2, static_cast<std::size_t>(request_.samples));
    for (std::size_t i = 0; i < known; ++i) std::swap(rows[i], rows[i + random() % (rows.size() - i)]);
    const std::vector<std::size_t> asked(rows.begin() + static_cast<std::ptrdiff_t>(known), rows.end());
    rows.resize(known);
    std::sort(rows.begin(), rows.end());
    const SisterFit fit = fit_with_sister(pick_rows(samples, rows), law, *sister, loads_);
    report_.notes.push_back(fmt::format("{}: {} rows, {:.0f} % of the residual of {}", samples.key.text(), known,
                                        100 * fit.carried_ratio, sister_.profile));
    CompiledKernel::Workspace workspace;
    std::vector<double> values;
    for (const std::size_t row : asked) {
      samples.row(row, values);
      const CompiledKernel::Answer answer = CompiledKernel(fit.model, values, workspace).at({values}, loads_);
      Outcome outcome;
      outcome.predicted_s = std::exp(answer.log_seconds);
      outcome.low_s = std::exp(answer.log_low);
      outcome.high_s = std::exp(answer.log_high);
      outcome.measured_s = samples.latency_s[row];
      add(samples, row, *law, outcome);
    }
  }

  /// Every row by a model that has not seen its group.
  void cross_validate(const KernelSamples& samples, const KernelLaw& law) {
    const std::vector<std::string_view> columns = law.group_columns(request_.leave_out);
    if (columns.empty()) {
      throw UsageError("--leave-out", fmt::format("\"{}\" is no group of {}", request_.leave_out, samples.key.layout),
                       "shape or machine; of MoE kernels also experts and inter, of GEMMs n and k");
    }
    const KernelData data = make_kernel_data(samples, law, loads_);
    const std::vector<int> groups = merge_groups(curve_groups(samples, data.curves, columns), kMostFolds);
    const int folds = *std::max_element(groups.begin(), groups.end()) + 1;
    if (folds < 2) {
      report_.not_judged["kernels with a single " + request_.leave_out] += static_cast<std::int64_t>(samples.size());
      return;
    }
    double noise = law.usual_noise();
    if (folds >= 3) {
      const WholeFit whole = fit_whole(data, law);
      noise = choose_noise(whole.covariance, whole.residuals, groups, noise);
    }
    const LeftOutRows rows = leave_groups_out(data, law, groups, noise);
    const std::vector<int> row_groups = row_groups_of(data, groups);
    std::vector<ScoreInterval> intervals;
    std::vector<double> efficiency;
    for (int group = 0; group < folds; ++group) {
      intervals.push_back(score_interval(data, rows, row_groups, group));
      std::vector<double> ratios;
      for (std::size_t row = 0; row < data.rows(); ++row) {
        if (row_groups[row] != group) ratios.push_back(log_efficiency(law, data, row));
      }
      efficiency.push_back(median(std::move(ratios)));
    }
    for (std::size_t row = 0; row < data.rows(); ++row) {
      const auto r = static_cast<Eigen::Index>(row);
      const auto group = static_cast<std::size_t>(row_groups[row]);
      const std::size_t band = kernel_band(data.band_size(r));
      Outcome outcome;
      outcome.predicted_s = std::exp(rows.log_predicted(r));
      outcome.low_s = std::exp(rows.log_predicted(r) + rows.sigma(r) * intervals[group].low[band]);
      outcome.high_s = std::exp(rows.log_predicted(r) + rows.sigma(r) * intervals[group].high[band]);
      outcome.measured_s = samples.latency_s[row];
      outcome.roofline_s = law.roofline_seconds(data.terms.row(r).data()) * std::exp(efficiency[group]);
      outcome.nearest_s = std::exp(rows.log_nearest(r));
      add(samples, row, law, outcome);
    }
  }

  static double log_efficiency(const KernelLaw& law, const KernelData& data, std::size_t row) {
    const auto r = static_cast<Eigen::Index>(row);
    return data.log_seconds(r) - std::log(law.roofline_seconds(data.terms.row(r).data()));
  }

  /// Both baselines of a kernel, from the profile's samples of it.
  void set_baselines(const KernelKey& key, const KernelLaw& law) {
    known_ = nullptr;
    efficiency_.reset();
    for (const KernelSamples& samples : profile_samples_) {
      if (samples.key != key) continue;
      const auto own = make_kernel_law(key, calibration_.device);
      known_data_ = make_kernel_data(samples, *own, loads_);
      known_ = &samples;
      std::vector<double> ratios;
      for (std::size_t row = 0; row < known_data_.rows(); ++row)
        ratios.push_back(log_efficiency(law, known_data_, row));
      efficiency_ = median(std::move(ratios));
    }
  }

  [[nodiscard]] std::optional<double> roofline(const KernelLaw& law, const KernelData& data, std::size_t row) const {
    if (!efficiency_) return std::nullopt;
    return law.roofline_seconds(data.terms.row(static_cast<Eigen::Index>(row)).data()) * std::exp(*efficiency_);
  }

  [[nodiscard]] Eigen::Index nearest_curve(const KernelModel& model, const std::vector<double>& values) const {
    if (known_ == nullptr) return -1;
    Eigen::MatrixXd at(1, known_data_.features.cols());
    std::vector<double> features(static_cast<std::size_t>(at.cols()));
    model.law->feature_values(values, features.data());
    for (Eigen::Index f = 0; f < at.cols(); ++f) at(0, f) = features[static_cast<std::size_t>(f)];
    Eigen::Index nearest = 0;
    curve_covariance(model.law->kernel(), at, known_data_.features).row(0).maxCoeff(&nearest);
    return nearest;
  }

  [[nodiscard]] std::optional<double> nearest_value(Eigen::Index curve, const KernelData& data, std::size_t row) const {
    if (curve < 0) return std::nullopt;
    return std::exp(nearest_log_seconds(known_data_, static_cast<std::size_t>(curve),
                                        data.coordinates.row(static_cast<Eigen::Index>(row))));
  }

  void add(const KernelSamples& samples, std::size_t row, const KernelLaw& law, const Outcome& outcome) {
    const KernelLayout& layout = samples.layout();
    const auto value = [&](std::size_t column) { return samples.columns[column][row]; };
    strata_.add("all", outcome);
    strata_.add("dtype " + samples.key.dtype, outcome);
    strata_.add("kernel " + samples.key.kernel + " " + samples.key.dtype, outcome);
    std::vector<double> values;
    samples.row(row, values);
    constexpr std::array<const char*, kKernelBands> kBandNames{"<= 16", "17-256", "> 256"};
    const bool moe = layout.kind == OperatorKind::fused_moe;
    strata_.add(fmt::format("{} {}", moe ? "tokens" : "rows", kBandNames[kernel_band(law.band_size(values))]), outcome);
    for (std::size_t c = 0; c < layout.numbers.size(); ++c) {
      const std::string_view name = layout.numbers[c].name;
      if (name == kDistributionColumn) strata_.add("load " + distribution_text(value(c)), outcome);
      if (name == "moe_tp_size") strata_.add(fmt::format("tp {:.0f}", value(c)), outcome);
      if (name == "moe_ep_size") strata_.add(fmt::format("ep {:.0f}", value(c)), outcome);
    }
    std::string shape;
    for (const std::string_view name : law.group_columns("shape")) {
      shape += fmt::format("{}{:.0f}", shape.empty() ? "" : "x", value(layout.column(name)));
    }
    if (!shape.empty()) strata_.add("shape " + shape, outcome);
  }

  const KernelValidation& request_;
  KernelCalibration calibration_;
  KernelCalibration sister_;
  std::vector<KernelSamples> profile_samples_;
  const KernelSamples* known_ = nullptr;
  KernelData known_data_;
  std::optional<double> efficiency_;
  RankLoadCache loads_;
  Strata strata_;
  KernelValidationReport report_;
};

}  // namespace

KernelValidationReport validate_kernels(const KernelValidation& request) { return Validator(request).run(); }

}  // namespace moecast
