#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace moecast {

inline constexpr std::int64_t kMaxSize = 1 << 24;

inline constexpr const char* kDeploymentGroup = "Deployment";
inline constexpr const char* kWorkloadGroup = "Workload";
inline constexpr const char* kLayerGroup = "A single MoE layer instead of --model";

/// A numeric flag: its range, what it is when nobody says, and the group of the help that shows it.
struct NumberFlag {
  const char* name;
  const char* key;  ///< name in the JSON `inputs`
  std::int64_t low;
  std::int64_t high;
  const char* fallback;  ///< "" = unknown unless given
  const char* group;
  const char* help;
};

/// In the order of the help, which is that of the ranges.
std::span<const NumberFlag> number_flags();

/// A combination under construction: values of numeric flags, and what was defaulted.
class Combination {
 public:
  /// @param axes  the values of each flag; empty = not given. @param index  of the combination, the last flag fastest.
  Combination(const std::vector<std::vector<std::int64_t>>& axes, std::size_t index);
  [[nodiscard]] bool has(const std::string& name) const { return values_.contains(name); }
  [[nodiscard]] bool given(const std::string& name) const { return given_.contains(name); }
  [[nodiscard]] std::int64_t at(const std::string& name) const { return values_.at(name); }
  [[nodiscard]] int as_int(const std::string& name) const { return static_cast<int>(values_.at(name)); }

 private:
  std::map<std::string, std::int64_t> values_;
  std::set<std::string> given_;
};

}  // namespace moecast
