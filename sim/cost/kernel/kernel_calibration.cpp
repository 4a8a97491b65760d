#include "sim/cost/kernel/kernel_calibration.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "models/core/error.h"
#include "sim/cost/kernel/kernel_fit.h"

namespace moecast {
namespace {

constexpr std::size_t kLeastRows = 20;

KernelSamples kept_rows(const KernelSamples& samples, const RowFilter& filter) {
  KernelSamples kept{samples.key, std::vector<std::vector<double>>(samples.columns.size()), {}};
  for (std::size_t row = 0; row < samples.size(); ++row) {
    if (filter.reason[row] >= 0) continue;
    for (std::size_t c = 0; c < kept.columns.size(); ++c) kept.columns[c].push_back(samples.columns[c][row]);
    kept.latency_s.push_back(samples.latency_s[row]);
  }
  return kept;
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
  int nearest = 0;
  for (const KernelModel& model : kernels) {
    if (model.key.layout != key.layout) continue;
    const int far = distance(model.key, key);
    const bool better =
        choice.model == nullptr || far < nearest || (far == nearest && far > 0 && model.shapes > choice.model->shapes);
    if (!better) continue;
    choice.model = &model;
    nearest = far;
  }
  if (choice.model == nullptr || nearest == 0) return choice;
  choice.substitution = difference(choice.model->key, key);
  // A version apart is nearly the same code; another kernel or format is another law.
  choice.widening = nearest == 1 ? 1.25 : nearest < 16 ? 2 : 3;
  return choice;
}

KernelCalibration calibrate_kernels(const Profile& profile, const std::vector<KernelSamples>& samples,
                                    const std::function<void(std::size_t, std::size_t)>& progress) {
  KernelCalibration calibration;
  calibration.profile = profile.name;
  calibration.device = device_limits(profile);
  std::vector<std::optional<KernelModel>> models(samples.size());
  std::mutex mutex;
  std::exception_ptr failure;
  std::atomic<std::size_t> next{0};
  std::size_t done = 0;
  // Large kernels first: the last thread to finish then has a small one.
  std::vector<std::size_t> order(samples.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return samples[a].size() > samples[b].size(); });
  const auto work = [&] {
    RankLoadCache loads;
    for (std::size_t i = next++; i < order.size(); i = next++) {
      const std::size_t at = order[i];
      std::map<std::string, std::int64_t> left_out;
      try {
        std::string reason;
        const auto law = make_kernel_law(samples[at].key, calibration.device, &reason);
        if (law == nullptr) {
          left_out[reason] += static_cast<std::int64_t>(samples[at].size());
        } else {
          const RowFilter filter = filter_rows(samples[at], *law, loads);
          for (const int row : filter.reason) {
            if (row >= 0) ++left_out[filter.reasons[static_cast<std::size_t>(row)]];
          }
          const KernelSamples kept = kept_rows(samples[at], filter);
          if (kept.size() >= kLeastRows) {
            models[at] = fit_kernel(kept, law, loads);
          } else {
            left_out["kernels with fewer than 20 rows"] += static_cast<std::int64_t>(kept.size());
          }
        }
      } catch (...) {
        const std::lock_guard lock(mutex);
        failure = std::current_exception();
        next = order.size();
      }
      const std::lock_guard lock(mutex);
      for (const auto& [reason, rows] : left_out) calibration.left_out[reason] += rows;
      ++done;
      if (progress) progress(done, order.size());
    }
  };
  std::vector<std::thread> threads;
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  for (unsigned i = 1; i < cores; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
  for (auto& model : models) {
    if (model) calibration.kernels.push_back(std::move(*model));
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
