#pragma once
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "hwprofiles/serving_table.h"

namespace moecast {

class JsonView;

/// What is known of a run beside the columns of its table.
struct RunSettings {
  double length_ratio = 1;   ///< mean tokens of prompts and outputs, of those that the table says
  double waves = 10;         ///< requests in all, of those in flight; the first wave comes at once
  double wait_steps = 0;     ///< of the engine that a prompt waits for its scheduler, in the mean
  int draft_tokens = 0;      ///< that layers of multi-token prediction guess
  double acceptance = 0;     ///< of guesses
  bool superseded = false;   ///< a later release of the engine replaced it, in another configuration
  bool defective = false;    ///< the release has a defect there that was reported
  std::string expert_dtype;  ///< of the measured kernels that are nearest to those that ran; empty: as the table has it
  std::string kv_dtype;      ///< of the KV cache; empty: as the model has it
  std::string all_reduce;  ///< framework whose measured all-reduce is nearest to the one that ran; empty: the engine's
};

/// How a benchmark was run, as its own scripts say: tables of its results leave settings out.
class PublishedRuns {
 public:
  /// @throws InputError naming file and field.
  static PublishedRuns parse(std::string_view text, const std::string& where);
  /// All *.json of a folder.
  static std::vector<PublishedRuns> read_all(const std::string& folder);

  [[nodiscard]] bool ran(const ServingRow& row) const;
  [[nodiscard]] const std::string& where() const { return where_; }
  /// Of a row that it ran.
  [[nodiscard]] RunSettings settings_of(const ServingRow& row) const;

 private:
  using Lengths = std::vector<std::array<double, 2>>;
  struct Range {
    double least = 0;
    double most = std::numeric_limits<double>::infinity();
    [[nodiscard]] bool holds(double value) const { return value >= least && value <= most; }
  };
  /// Everything that is given has to hold.
  struct Rule {
    std::string engine, measured_from;
    std::vector<std::string> models, systems, versions, expert_dtypes;
    Lengths lengths;
    Range tp, dp, concurrency;
    double wait_steps = 0;
    int draft_tokens = 0;
    double acceptance = 0;
    bool superseded = false, defective = false;
    std::string expert_kernels, kv_dtype, all_reduce;
    [[nodiscard]] bool holds(const ServingRow& row) const;
  };
  static Rule parse_rule(const JsonView& json);

  std::string where_;
  std::vector<std::string> models_;  ///< what names of models begin with
  Lengths lengths_;
  RunSettings usual_;
  std::vector<Rule> rules_;
};

/// Of the benchmark that ran it; where none did, as such benchmarks usually are. @throws InputError when two say so.
RunSettings settings_of(const std::vector<PublishedRuns>& known, const ServingRow& row);

}  // namespace moecast
