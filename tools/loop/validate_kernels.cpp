#include "tools/loop/validate_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "models/core/error.h"
#include "models/core/statistics.h"
#include "sim/cost/kernel/few_samples.h"
#include "sim/cost/kernel/kernel_fit.h"
#include "sim/cost/kernel/left_out_scores.h"
#include "sim/cost/kernel/table_load.h"
#include "tools/loop/kernel_strata.h"

namespace moecast {
namespace {

/// Share of a sister machine's residual that this one shows too.
constexpr double kSisterShare = 0.9;

/// Strata come in this order.
constexpr std::array<std::string_view, 12> kOrder{"all",  "dtype", "kernel", "load", "tokens", "bytes",
                                                  "rows", "ranks", "nodes",  "tp",   "ep",     "shape"};

class Validator {
 public:
  explicit Validator(const KernelValidation& request) : request_(request) {}

  KernelValidationReport run() {
    const Profile profile = read_profile(request_.folder);
    backends_ = read_backend_rules(request_.folder);
    std::vector<KernelSamples> kernels;
    for (const std::string& path : request_.tables) {
      KernelTable table = read_kernel_table(path, request_.layout, request_.framework, request_.version);
      add_report(table.report);
      std::move(table.kernels.begin(), table.kernels.end(), std::back_inserter(kernels));
    }
    if (request_.leave_out.empty()) {
      calibration_ = read_kernel_calibration(request_.folder, profile.name);
      profile_samples_ = read_kernel_samples(request_.folder);
    } else {
      calibration_.device = device_limits(profile, backends_);
      if (!request_.sister.empty()) {
        sister_ = read_kernel_calibration(request_.sister, read_profile(request_.sister).name);
      }
    }
    for (const KernelSamples& samples : kernels) report_.picks.add(backends_, samples);
    std::size_t all = 0;
    for (const KernelSamples& samples : kernels) all += samples.size();
    std::size_t done = 0;
    for (const KernelSamples& samples : kernels) {
      judge(samples);
      done += samples.size();
      if (request_.progress) request_.progress(static_cast<double>(done) / static_cast<double>(all));
    }
    finish_held_out();
    report_.strata = strata_.summaries(kOrder);
    return std::move(report_);
  }

 private:
  void add_report(const TableReport& report) {
    report_.table.rows += report.rows;
    report_.table.kept += report.kept;
    report_.table.duplicates += report.duplicates;
    report_.table.disagreeing += report.disagreeing;
    for (const auto& [reason, rows] : report.left_out) report_.table.left_out[reason] += rows;
    for (const auto& [reason, text] : report.examples) report_.table.examples.emplace(reason, text);
  }

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
      cross_validate(kept, law);
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
        const CompiledKernel::Answer answer = compiled.at({values, table_load(samples.key, values, loads_)}, loads_);
        Outcome outcome;
        outcome.predicted_s = std::exp(answer.log_seconds);
        outcome.low_s = std::exp(answer.log_low);
        outcome.high_s = std::exp(answer.log_high);
        outcome.measured_s = samples.latency_s[row];
        outcome.roofline_s = roofline(law, data, row);
        outcome.nearest_s = nearest_value(nearest, data, row);
        add_kernel_outcome(samples, row, law, outcome, strata_);
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
      const CompiledKernel::Answer answer =
          CompiledKernel(fit.model, values, workspace).at({values, table_load(samples.key, values, loads_)}, loads_);
      Outcome outcome;
      outcome.predicted_s = std::exp(answer.log_seconds);
      outcome.low_s = std::exp(answer.log_low);
      outcome.high_s = std::exp(answer.log_high);
      outcome.measured_s = samples.latency_s[row];
      add_kernel_outcome(samples, row, *law, outcome, strata_);
    }
  }

  /// Every row by a model that has not seen its group.
  void cross_validate(const KernelSamples& samples, const std::shared_ptr<const KernelLaw>& law_pointer) {
    const KernelLaw& law = *law_pointer;
    const std::vector<std::string_view> columns = law.group_columns(request_.leave_out);
    if (columns.empty()) {
      throw UsageError(
          "--leave-out", fmt::format("\"{}\" is no group of {}", request_.leave_out, samples.key.layout),
          "shape or machine; of MoE kernels also experts and inter, of GEMMs n and k, of collectives ranks "
          "and nodes");
    }
    KernelData data = make_kernel_data(samples, law, loads_);
    const std::vector<int> groups = merge_groups(curve_groups(samples, data.curves, columns), kMostFolds);
    const int folds = *std::max_element(groups.begin(), groups.end()) + 1;
    if (folds < 2) {
      report_.not_judged["kernels with a single " + request_.leave_out] += static_cast<std::int64_t>(samples.size());
      return;
    }
    // What a sister machine does beyond its law, it does here too: the rest is learned.
    const Eigen::VectorXd carried = kSisterShare * sister_residuals(samples.key, data);
    data.log_seconds -= carried;
    double noise = law.usual_noise();
    if (folds >= 3 && !law.pools_scores()) {
      const WholeFit whole = fit_whole(data, law);
      noise = choose_noise(whole.covariance, whole.residuals, groups, noise);
    }
    HeldOut held{samples, law_pointer, data, leave_groups_out(data, law, groups, noise), {}, {}, {}};
    const std::vector<int> row_groups = row_groups_of(data, groups);
    held.data.log_seconds += carried;
    held.rows.log_predicted += carried;
    held.scores = left_out_scores(held.data, held.rows, row_groups);
    for (int group = 0; group < folds; ++group) {
      std::vector<double> ratios;
      for (std::size_t row = 0; row < data.rows(); ++row) {
        if (row_groups[row] != group) ratios.push_back(log_efficiency(law, held.data, row));
      }
      held.log_efficiency.push_back(median(std::move(ratios)));
    }
    if (law.pools_scores()) {
      held_out_.push_back(std::move(held));
      return;
    }
    std::vector<HeldOut> waiting = std::exchange(held_out_, {});
    held_out_.push_back(std::move(held));
    finish_held_out();
    held_out_ = std::move(waiting);
  }

  /// What the sister machine does beyond its law: half from the same version of the library, half the median over all,
  /// which differ by chance and by what was changed.
  [[nodiscard]] Eigen::VectorXd sister_residuals(const KernelKey& key, const KernelData& data) const {
    std::vector<Eigen::VectorXd> versions;
    std::optional<std::size_t> same;
    for (const KernelModel& model : sister_.kernels) {
      if (model.key.framework == key.framework && model.key.layout == key.layout && model.key.kernel == key.kernel &&
          model.key.dtype == key.dtype) {
        if (model.key.version == key.version) same = versions.size();
        versions.push_back(model_residuals(data, model));
      }
    }
    Eigen::VectorXd middle = Eigen::VectorXd::Zero(static_cast<Eigen::Index>(data.rows()));
    std::vector<double> values;
    for (Eigen::Index row = 0; row < middle.size() && !versions.empty(); ++row) {
      values.clear();
      for (const Eigen::VectorXd& version : versions) values.push_back(version(row));
      middle(row) = median(values);
    }
    if (same) middle = (middle + versions[*same]) / 2;
    return middle;
  }

  /// A table's kernel, each row by a model that has not seen its group.
  struct HeldOut {
    KernelSamples samples;
    std::shared_ptr<const KernelLaw> law;
    KernelData data;
    LeftOutRows rows;
    std::vector<LeftOutScore> scores;
    std::vector<LeftOutScore> pooled{};  ///< with groups and units that kernels share
    std::vector<double> log_efficiency;  ///< of a roofline, by group
  };

  /// Scores of one kernel in all tables, with groups numbered from `groups` on.
  std::vector<LeftOutScore> family_scores(const std::vector<HeldOut*>& members, int& groups) const {
    std::map<std::string, int> numbers;
    std::vector<LeftOutScore> family;
    for (const HeldOut* held : members) {
      const KernelLayout& layout = held->samples.layout();
      for (std::size_t row = 0; row < held->scores.size(); ++row) {
        LeftOutScore score = held->scores[row];
        std::string name = std::to_string(score.group);
        if (held->law->pools_scores()) {
          name.clear();
          for (const std::string_view column : held->law->group_columns(request_.leave_out)) {
            name += " " + std::to_string(held->samples.columns[layout.column(column)][row]);
          }
        }
        score.group = groups + numbers.emplace(std::move(name), static_cast<int>(numbers.size())).first->second;
        family.push_back(score);
      }
    }
    groups += static_cast<int>(numbers.size());
    if (members.front()->law->pools_scores()) normalise_scores(family);
    std::size_t at = 0;
    for (HeldOut* held : members) {
      held->pooled.assign(family.begin() + static_cast<std::ptrdiff_t>(at),
                          family.begin() + static_cast<std::ptrdiff_t>(at + held->scores.size()));
      at += held->scores.size();
    }
    return family;
  }

  /// Intervals, from all kernels that wait together.
  void finish_held_out() {
    if (held_out_.empty()) return;
    std::map<std::string, std::vector<HeldOut*>> families;
    for (HeldOut& held : held_out_) families[held.samples.key.layout + " " + held.samples.key.kernel].push_back(&held);
    std::vector<LeftOutScore> all;
    int groups = 0;
    for (auto& [name, members] : families) {
      const std::vector<LeftOutScore> rows = family_scores(members, groups);
      all.insert(all.end(), rows.begin(), rows.end());
    }
    // Beside a sister machine, whose residuals are known, few groups need no caution.
    Caution caution = sister_.kernels.empty() ? caution_for(groups) : Caution{};
    caution.symmetric = held_out_.front().law->pools_scores();
    const LeftOutIntervals intervals = left_out_intervals(all, caution);
    for (const HeldOut& held : held_out_) {
      for (std::size_t row = 0; row < held.scores.size(); ++row) {
        const LeftOutScore& score = held.pooled[row];
        const ScoreInterval& interval = intervals.without[static_cast<std::size_t>(score.group)];
        const auto r = static_cast<Eigen::Index>(row);
        Outcome outcome;
        outcome.predicted_s = std::exp(score.log_predicted);
        outcome.low_s = std::exp(score.log_predicted + score.sigma * interval.low_of(score.stratum) - score.growth.low);
        outcome.high_s =
            std::exp(score.log_predicted + score.sigma * interval.high_of(score.stratum) + score.growth.high);
        outcome.measured_s = held.samples.latency_s[row];
        outcome.roofline_s = held.law->roofline_seconds(held.data.terms.row(r).data()) *
                             std::exp(held.log_efficiency[static_cast<std::size_t>(held.scores[row].group)]);
        outcome.nearest_s = std::exp(held.rows.log_nearest(r));
        add_kernel_outcome(held.samples, row, *held.law, outcome, strata_);
      }
    }
    held_out_.clear();
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

  const KernelValidation& request_;
  KernelCalibration calibration_;
  KernelCalibration sister_;
  std::vector<BackendRules> backends_;
  std::vector<HeldOut> held_out_;
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
