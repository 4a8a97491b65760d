#pragma once
#include <memory>
#include <string>
#include <vector>

#include "models/core/json.h"
#include "tools/cli/compared_numbers.h"

namespace moecast {

/// Two answers of `serve`, side by side. Latencies and saturation are undecided where their 90 % intervals overlap.
class ComparedServices {
 public:
  /// @param first_file, second_file  for errors. @throws InputError on what no answer of `serve` says.
  ComparedServices(std::shared_ptr<const Json> first, const std::string& first_file, std::shared_ptr<const Json> second,
                   const std::string& second_file);

  /// Inputs that differ, quantities, a verdict each of TTFT, TPOT and saturation. @param format  table or md.
  [[nodiscard]] std::string text(Format format) const;
  /// `verdicts` [{`name`, `verdict`, `reason`}], `inputs_that_differ`, `quantities`, and both answers under `a` and
  /// `b`. Unknown is null.
  [[nodiscard]] Json json() const;
  /// A record a quantity: `kind`, `name`, `a`, `b`, `difference`, `ratio`.
  [[nodiscard]] std::vector<Json> records() const;

 private:
  struct Verdict {
    std::string name;
    std::string verdict;  ///< lower, higher, equal, undecided, only_a, only_b, neither
    std::string reason;
  };
  void add_verdict(const char* name, const char* title, const char* low, const char* high);

  std::shared_ptr<const Json> first_, second_;
  std::vector<ComparedNumber> numbers_;
  std::vector<Verdict> verdicts_;
};

}  // namespace moecast
