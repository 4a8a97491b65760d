#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "models/core/json.h"
#include "tools/cli/hardware_choice.h"
#include "tools/cli/query_options.h"

namespace moecast {

/// Every combination of the lists and ranges of some flags, answered when it is asked for; threads may share it.
/// The order is that of the lists (--model, --hw, --backend, --load, --dtype, --strategy, --capacity-factor,
/// --overflow,
/// --activation, --offload, --optimizer, --recompute, --phase), then of the ranges; the last changes fastest.
class SweepPoints {
 public:
  /// Loads every model and profile.
  /// @throws UsageError on what is wrong in every combination, InputError on a bad model or profile.
  SweepPoints(const QueryOptions& options, const DataFolders& folders);

  [[nodiscard]] std::size_t size() const { return size_; }

  /// What varies, and what `predict` gives, without operators and inputs: always the same keys, unknown is null.
  /// `status` is "invalid", with a reason, where the combination is an error by itself.
  [[nodiscard]] Json row(std::size_t index) const;

  /// The keys of a row, with null for every value.
  [[nodiscard]] Json blank_row() const;

  /// Columns of a row that hold words, and those that hold whole numbers; all others are floating-point numbers.
  [[nodiscard]] std::vector<std::string> text_columns() const;
  [[nodiscard]] std::vector<std::string> whole_columns() const;

  /// Begins to count anew.
  void reset_counts();
  /// Answers so far: a status and how many points have it, of those that occurred.
  [[nodiscard]] std::vector<std::pair<std::string, std::size_t>> counts() const;
  /// Why the first invalid point was; empty where there was none.
  [[nodiscard]] std::string invalid_reason() const;
  /// Notes of the importers of the models.
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  /// Warnings of the answers so far, each once, twenty at most.
  [[nodiscard]] std::vector<std::string> warnings() const;

 private:
  struct Machine {
    std::string name;
    HardwareChoice hardware;
    std::unique_ptr<Predictor> predictor;
  };
  /// One combination of the lists, with all of its ranges.
  struct Part {
    QueryOptions options;
    std::vector<std::string> words;  ///< of the lists that vary
    const Machine* machine;
    QuerySet set;
    std::size_t first;  ///< its first point
  };

  void add_part(const QueryOptions& options, std::vector<std::string> words,
                const std::shared_ptr<const Architecture>& model);
  Prediction answer(const Part& part, std::size_t index) const;
  void note(const Prediction& prediction) const;
  void note_invalid(const std::string& reason) const;

  std::vector<std::string> columns_;  ///< lists that vary, then ranges
  std::vector<bool> numbers_;         ///< of the lists: whether their words are numbers
  std::size_t lists_ = 0;             ///< of them
  bool several_questions_ = false;    ///< models or phases
  std::vector<std::unique_ptr<Machine>> machines_;
  std::vector<Part> parts_;
  std::size_t size_ = 0;
  std::vector<std::string> notes_;
  std::shared_ptr<const Json> unknown_;  ///< a row's keys after the columns, all null

  mutable std::array<std::atomic<std::size_t>, 4> counts_{};
  mutable std::mutex mutex_;
  mutable std::set<std::string> warnings_;
  mutable std::string invalid_reason_;
};

}  // namespace moecast
