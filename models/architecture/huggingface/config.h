#pragma once
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "models/core/json.h"

namespace moecast::huggingface {

/// Names under which configurations store one fact, the most specific first. A name may be a path:
/// "ffn_config.moe_top_k".
using Names = std::initializer_list<std::string_view>;

/// The language model's part of a config.json. A field is looked for in the nested text configuration first, then
/// outside it. Remembers what was asked for, so that the rest can be named.
class Config {
 public:
  explicit Config(const JsonView& root);

  [[nodiscard]] const std::string& where() const { return text_.where(); }
  /// The first name that is there and not null.
  std::optional<JsonView> find(Names names);
  std::optional<std::int64_t> find_int(Names names, std::int64_t low = 0, std::int64_t high = kMaxSize);
  std::optional<double> find_number(Names names, double low = -1e9, double high = 1e9);
  std::optional<bool> find_bool(Names names);
  std::optional<std::string> find_text(Names names);
  /// @throws InputError that names the field and its synonyms.
  std::int64_t need_int(Names names, std::int64_t low = 1, std::int64_t high = kMaxSize);
  /// A list of whole numbers, of which booleans are 0 and 1; a single number is a list of one, and an
  /// empty list says nothing.
  std::optional<std::vector<std::int64_t>> find_ints(Names names, std::int64_t low = 0, std::int64_t high = kMaxSize);
  std::optional<std::vector<std::string>> find_texts(Names names);
  /// model_type of the language model, else of the whole, else "".
  [[nodiscard]] const std::string& family() const { return family_; }

  /// Fields that nobody asked for, those left out that say nothing about cost (tokens, dropout, training, ...).
  [[nodiscard]] std::vector<std::string> ignored() const;

  static constexpr std::int64_t kMaxSize = std::int64_t{1} << 28;

 private:
  std::optional<JsonView> look_up(const JsonView& from, std::string_view path);
  JsonView root_;
  JsonView text_;
  std::string family_;
  std::set<std::string, std::less<>> asked_;
};

/// "a" or "a (also b, c)".
std::string describe(Names names);

}  // namespace moecast::huggingface
