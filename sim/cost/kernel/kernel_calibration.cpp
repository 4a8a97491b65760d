#include "sim/cost/kernel/kernel_calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cmath>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <tuple>

#include "models/core/error.h"
#include "sim/cost/kernel/few_samples.h"
#include "sim/cost/kernel/kernel_fit.h"
#include "sim/cost/kernel/left_out_scores.h"
#include "sim/cost/kernel/spiked_rows.h"

namespace moecast {
namespace {

constexpr std::size_t kLeastRows = 20;

KernelSamples kept_rows(const KernelSamples& samples, const RowFilter& filter) {
  std::vector<std::size_t> rows;
  for (std::size_t row = 0; row < samples.size(); ++row) {
    if (filter.reason[row] < 0) rows.push_back(row);
  }
  return pick_rows(samples, rows);
}

/// How far a known kernel is from a wanted one, in what differs; larger is farther.
int distance(const KernelKey& known, const KernelKey& wanted) {
  int far = 0;
  if (known.version != wanted.version) far += 1;
  if (known.kernel != wanted.kernel) far += 4;
  if (known.framework != wanted.framework) far += 16;
  if (known.dtype != wanted.dtype) far += 64;
  return far;
}

/// How far apart two versions are: the first number that differs counts most. "1.3.0rc10" is 1, 3, 0, 10.
double version_distance(const std::string& a, const std::string& b) {
  constexpr std::size_t kParts = 4;
  constexpr double kBase = 1e4;
  const auto parts = [](const std::string& text) {
    std::array<double, kParts> numbers{};
    std::size_t part = 0;
    for (std::size_t i = 0; i < text.size() && part < kParts;) {
      int number = 0;
      const auto [end, error] = std::from_chars(text.data() + i, text.data() + text.size(), number);
      if (error == std::errc() && number >= 0) numbers[part++] = std::min<double>(number, kBase - 1);
      i = std::max(i + 1, static_cast<std::size_t>(end - text.data()));
    }
    return numbers;
  };
  const auto left = parts(a);
  const auto right = parts(b);
  for (std::size_t i = 0; i < kParts; ++i) {
    if (left[i] != right[i]) return std::abs(left[i] - right[i]) * std::pow(kBase, static_cast<double>(kParts - i));
  }
  return a == b ? 0 : 1;
}

std::string difference(const KernelKey& known, const KernelKey& wanted) {
  std::string text;
  const auto add = [&](bool differs, const std::string& what) {
    if (differs) text += (text.empty() ? "" : ", ") + what;
  };
  add(known.framework != wanted.framework, "framework " + known.framework);
  add(known.version != wanted.version, "version " + known.version);
  add(known.kernel != wanted.kernel, "kernel " + known.kernel);
  add(known.dtype != wanted.dtype, "format " + known.dtype);
  return text;
}

}  // namespace

KernelCalibration::Choice KernelCalibration::choose(const KernelKey& key) const {
  Choice choice;
  // Another kernel of a GEMM computes the same; another collective does not.
  const bool same_kernel = is_communication(key.layout);
  int nearest = 0;
  double apart = 0;
  for (const KernelModel& model : kernels) {
    if (model.key.layout != key.layout || (same_kernel && model.key.kernel != key.kernel)) continue;
    const int far = distance(model.key, key);
    const double versions = version_distance(model.key.version, key.version);
    const auto rank = [](int steps, double between, int shapes) { return std::tuple(steps, between, -shapes); };
    const bool better =
        choice.model == nullptr || rank(far, versions, model.shapes) < rank(nearest, apart, choice.model->shapes);
    if (!better) continue;
    choice.model = &model;
    nearest = far;
    apart = versions;
  }
  if (choice.model == nullptr || nearest == 0) return choice;
  choice.substitution = difference(choice.model->key, key);
  // A version apart is nearly the same code; another kernel or format is another law.
  choice.widening = nearest == 1 ? 1.25 : nearest < 16 ? 2 : 3;
  return choice;
}

KernelModel KernelCalibration::Choice::stand_in(const KernelKey& key, const DeviceLimits& limits) const {
  KernelModel stand_in = *model;
  if (substitution.empty()) return stand_in;
  if (key.dtype != stand_in.key.dtype) stand_in.law = make_kernel_law(key, limits);
  stand_in.inherited = true;
  stand_in.scores.widen(widening);
  return stand_in;
}

const KernelModel* find_sister_kernel(const KernelCalibration& sister, const KernelKey& key) {
  const KernelModel* found = nullptr;
  for (const KernelModel& model : sister.kernels) {
    const KernelKey& known = model.key;
    if (known.framework != key.framework || known.layout != key.layout || known.kernel != key.kernel ||
        known.dtype != key.dtype) {
      continue;
    }
    if (found == nullptr || known.version == key.version) found = &model;
  }
  return found;
}

namespace {

/// Fits kernels one by one, on all cores.
class Fitter {
 public:
  Fitter(KernelCalibration& calibration, const std::vector<KernelSamples>& samples, const KernelCalibration* sister,
         const std::function<void(std::size_t, std::size_t)>& progress)
      : calibration_(calibration), samples_(samples), sister_(sister), progress_(progress), models_(samples.size()) {
    // Large kernels first: the last thread to finish then has a small one.
    for (std::size_t i = 0; i < samples.size(); ++i) order_.push_back(i);
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::size_t a, std::size_t b) { return samples[a].size() > samples[b].size(); });
  }

  void run() {
    {
      std::vector<std::jthread> threads;
      const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
      try {
        for (unsigned i = 1; i < cores; ++i) threads.emplace_back([this] { work(); });
      } catch (const std::system_error&) {  // a limit on processes: this thread does it all
      }
      work();
    }
    if (failure_) std::rethrow_exception(failure_);
    for (auto& model : models_) {
      if (model) calibration_.kernels.push_back(std::move(*model));
    }
    std::sort(calibration_.choices.begin(), calibration_.choices.end());
  }

 private:
  void work() {
    RankLoadCache loads;
    for (std::size_t i = next_++; i < order_.size(); i = next_++) {
      std::map<std::string, std::int64_t> left_out;
      std::string choice;
      try {
        models_[order_[i]] = fit(samples_[order_[i]], loads, left_out, choice);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        failure_ = std::current_exception();
        next_ = order_.size();
      }
      const std::lock_guard lock(mutex_);
      for (const auto& [reason, rows] : left_out) calibration_.left_out[reason] += rows;
      if (!choice.empty()) calibration_.choices.push_back(choice);
      ++done_;
      if (progress_) progress_(done_, order_.size());
    }
  }

  std::optional<KernelModel> fit(const KernelSamples& samples, RankLoadCache& loads,
                                 std::map<std::string, std::int64_t>& left_out, std::string& choice) const {
    std::string reason;
    const auto law = make_kernel_law(samples.key, calibration_.device, &reason);
    if (law == nullptr) {
      left_out[reason] += static_cast<std::int64_t>(samples.size());
      return std::nullopt;
    }
    RowFilter filter = filter_rows(samples, *law, loads);
    const std::vector<bool> spiked = spiked_rows(samples);
    filter.reasons.emplace_back("1.5 times slower than fewer and more rows of a smooth kernel");
    for (std::size_t row = 0; row < spiked.size(); ++row) {
      if (spiked[row] && filter.reason[row] < 0) filter.reason[row] = static_cast<int>(filter.reasons.size()) - 1;
    }
    for (const int row : filter.reason) {
      if (row >= 0) ++left_out[filter.reasons[static_cast<std::size_t>(row)]];
    }
    const KernelSamples kept = kept_rows(samples, filter);
    if (kept.size() < kLeastRows) {
      left_out["kernels with fewer than 20 rows"] += static_cast<std::int64_t>(kept.size());
      return std::nullopt;
    }
    const KernelModel* sister = sister_ == nullptr ? nullptr : find_sister_kernel(*sister_, samples.key);
    if (sister == nullptr || kept.size() >= kFewRows || law->pools_scores()) {
      return fit_kernel(kept, law, loads);
    }
    SisterFit fit = fit_with_sister(kept, law, *sister, loads);
    choice = samples.key.text() + ": " + std::to_string(kept.size()) + " rows, " +
             (fit.carried_ratio == 0 ? "physics alone: the residual of " + sister_->profile + " does not help"
                                     : std::to_string(static_cast<int>(fit.carried_ratio * 100)) +
                                           " % of the residual of " + sister_->profile) +
             " (cross-validated median " + std::to_string(static_cast<int>(std::lround(1000 * fit.error_without))) +
             " -> " + std::to_string(static_cast<int>(std::lround(1000 * fit.error_with))) + " per mille)";
    return std::move(fit.model);
  }

  KernelCalibration& calibration_;
  const std::vector<KernelSamples>& samples_;
  const KernelCalibration* sister_;
  const std::function<void(std::size_t, std::size_t)>& progress_;
  std::vector<std::size_t> order_;
  std::vector<std::optional<KernelModel>> models_;
  std::mutex mutex_;
  std::exception_ptr failure_;
  std::atomic<std::size_t> next_{0};
  std::size_t done_ = 0;
};

/// Tiles that the sister has tuned, of kernels of which nothing is known here.
void inherit_tuned(const KernelCalibration& sister, KernelCalibration& calibration) {
  std::vector<TunedTiles>& own = calibration.device.tuned;
  for (const TunedTiles& known : sister.device.tuned) {
    const bool here = std::ranges::any_of(
        own, [&](const TunedTiles& t) { return t.kernel == known.kernel && t.formats == known.formats; });
    if (!here) own.push_back(known);
  }
}

/// Kernels that the sister has and this machine was never measured with: its physics on this datasheet.
void inherit_kernels(const KernelCalibration& sister, KernelCalibration& calibration) {
  // Left out whole, H200 from H100 is off by 5 % and B300 from B200 by 3 % in the median: twice the interval covers it.
  constexpr double kWider = 2;
  std::size_t inherited = 0;
  for (const KernelModel& known : sister.kernels) {
    if (find_sister_kernel(calibration, known.key) != nullptr) continue;
    KernelModel model = known;
    model.law = make_kernel_law(known.key, calibration.device);
    model.scores.widen(kWider);
    model.rows = 0;
    model.inherited = true;
    model.left_out.reset();
    calibration.kernels.push_back(std::move(model));
    ++inherited;
  }
  if (inherited > 0) {
    calibration.choices.push_back(std::to_string(inherited) + " kernels without a row: those of " + sister.profile +
                                  " on this datasheet, with twice the interval");
  }
}

}  // namespace

KernelCalibration calibrate_kernels(const Profile& profile, const std::vector<KernelSamples>& samples,
                                    const std::function<void(std::size_t, std::size_t)>& progress,
                                    const KernelCalibration* sister, const std::vector<BackendRules>& backends) {
  KernelCalibration calibration;
  calibration.profile = profile.name;
  calibration.device = device_limits(profile, backends);
  if (sister != nullptr) inherit_tuned(*sister, calibration);
  Fitter(calibration, samples, sister, progress).run();
  pool_scores(calibration.kernels);
  if (sister != nullptr) inherit_kernels(*sister, calibration);
  if (calibration.kernels.empty() && !samples.empty()) {
    std::string reasons;
    for (const auto& [reason, rows] : calibration.left_out) {
      reasons += fmt::format("{}{} rows: {}", reasons.empty() ? "" : "; ", rows, reason);
    }
    throw InputError(
        profile.name, "holds samples, and no kernel that can be calibrated (" + reasons + ")",
        fmt::format("measure at least {} rows of a kernel: more sizes, more shapes or rank counts", kLeastRows));
  }
  if (calibration.kernels.empty()) {
    throw InputError(profile.name, "holds no kernel samples to calibrate from",
                     "import a table: moecast import table FILE --system NAME");
  }
  std::sort(calibration.kernels.begin(), calibration.kernels.end(),
            [](const KernelModel& a, const KernelModel& b) { return a.key < b.key; });
  return calibration;
}

}  // namespace moecast
