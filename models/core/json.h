#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moecast {

using Json = nlohmann::ordered_json;

/// Parses text that came from `where`: at most 200 levels deep, no duplicate keys, no trailing text.
/// @throws InputError with line and column.
Json parse_json(std::string_view text, const std::string& where);

/// read_text_file + parse_json.
Json read_json_file(const std::string& path);

/// Text with two-space indent and a final newline. @throws std::logic_error on a non-finite number, naming its path.
std::string dump_json(const Json& value);
/// The same on one line (JSON lines).
std::string dump_json_line(const Json& value);

/// A JSON value and where it stands, so that every error names file and pointer ("config.json: /text_config/heads").
/// Cheap to copy; the document must outlive it.
class JsonView {
 public:
  JsonView(const Json& value, std::string where) : value_(&value), where_(std::move(where)) {}

  [[nodiscard]] const Json& raw() const { return *value_; }
  [[nodiscard]] const std::string& where() const { return where_; }
  [[nodiscard]] bool is_object() const;
  [[nodiscard]] bool is_array() const;
  [[nodiscard]] bool is_string() const;
  [[nodiscard]] bool is_number() const;
  [[nodiscard]] bool is_null() const;
  /// True if an object with this key whose value is not null.
  [[nodiscard]] bool has(std::string_view key) const;
  [[nodiscard]] std::size_t size() const;
  [[nodiscard]] std::vector<std::string> keys() const;

  /// @throws InputError if missing or null, or this is no object.
  [[nodiscard]] JsonView at(std::string_view key) const;
  [[nodiscard]] JsonView at(std::size_t index) const;

  /// Typed values; @throws InputError when of another type, out of [low, high] or not finite.
  [[nodiscard]] std::int64_t as_int(std::int64_t low = INT64_MIN, std::int64_t high = INT64_MAX) const;
  [[nodiscard]] double as_number(double low = -1e300, double high = 1e300) const;
  [[nodiscard]] bool as_bool() const;
  [[nodiscard]] std::string as_string() const;

  /// nullopt when the key is missing or null.
  [[nodiscard]] std::optional<std::int64_t> find_int(std::string_view key, std::int64_t low = INT64_MIN,
                                                     std::int64_t high = INT64_MAX) const;
  [[nodiscard]] std::optional<double> find_number(std::string_view key, double low = -1e300, double high = 1e300) const;
  [[nodiscard]] std::optional<bool> find_bool(std::string_view key) const;
  [[nodiscard]] std::optional<std::string> find_string(std::string_view key) const;

  /// @throws InputError naming the first key that is not in `known`, with the nearest known name as a hint.
  void refuse_unknown_keys(const std::vector<std::string_view>& known) const;

 private:
  [[noreturn]] void wrong_type(std::string_view expected) const;
  const Json* value_;
  std::string where_;
};

/// The candidate with the least edit distance, if it is near enough to be a typo.
std::optional<std::string> nearest_name(std::string_view name, const std::vector<std::string_view>& candidates);

}  // namespace moecast
