#pragma once
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/accuracy/accuracy.h"

namespace moecast {

struct Stratum {
  std::string name;  ///< "all", "dtype fp8_block", "tokens <= 16", "shape 4096x1536x8x128", ...
  ErrorSummary summary;
};

/// Outcomes by the strata that they belong to.
class Strata {
 public:
  void add(const std::string& name, const Outcome& outcome);
  [[nodiscard]] bool empty() const { return names_.empty(); }
  /// By kind (first word) in the order given, unknown kinds first; of a kind by name.
  [[nodiscard]] std::vector<Stratum> summaries(std::span<const std::string_view> order) const;

 private:
  std::map<std::string, std::size_t> index_;
  std::vector<std::string> names_;
  std::vector<std::vector<Outcome>> outcomes_;
};

}  // namespace moecast
