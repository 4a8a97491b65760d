#include "models/core/json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

constexpr std::size_t kMaxDepth = 200;
constexpr std::size_t kMaxMessageBytes = 200;

/// Line and column of a byte offset, for error messages.
std::string position(std::string_view text, std::size_t byte) {
  const std::string_view before = text.substr(0, std::min(byte, text.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const std::size_t start = before.rfind('\n');
  const std::size_t column = start == std::string_view::npos ? before.size() + 1 : before.size() - start;
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

/// Refuses deep nesting and duplicate keys without building the document.
class Guard : public nlohmann::json_sax<Json> {
 public:
  Guard(std::string_view text, const std::string& where) : text_(text), where_(where) {}
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t value, const string_t&) override {
    if (!std::isfinite(value))
      throw InputError(where_, "holds a number beyond the range of double", "write a number below 1.8e308");
    return true;
  }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    deeper();
    seen_.emplace_back();
    return true;
  }
  bool key(string_t& name) override {
    if (!seen_.back().insert(name).second) {
      throw InputError(where_, "key \"" + name + "\" stands twice in one object", "keep one of the two");
    }
    return true;
  }
  bool end_object() override {
    --depth_;
    seen_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    deeper();
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(std::size_t byte, const std::string&, const nlohmann::detail::exception& error) override {
    std::string message = error.what();
    const std::size_t detail = message.find(": ");
    if (detail != std::string::npos) message = message.substr(detail + 2);
    if (message.size() > kMaxMessageBytes) message = message.substr(0, kMaxMessageBytes) + "...";
    throw InputError(where_ + ": " + position(text_, byte == 0 ? 0 : byte - 1), "is not valid JSON: " + message,
                     text_.empty() ? "the file is empty" : "mend it there; if the file is cut off, copy it again");
  }

 private:
  void deeper() {
    if (++depth_ > kMaxDepth) {
      throw InputError(where_, "is nested deeper than " + std::to_string(kMaxDepth) + " levels",
                       "this is not a file of the expected kind");
    }
  }
  std::string_view text_;
  const std::string& where_;
  std::size_t depth_ = 0;
  std::vector<std::set<std::string>> seen_;
};

void refuse_non_finite(const Json& value, const std::string& path) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    throw std::logic_error("a non-finite number at " + (path.empty() ? "/" : path) + " cannot be written as JSON");
  }
  if (value.is_structured()) {
    for (const auto& [key, child] : value.items()) refuse_non_finite(child, path + "/" + key);
  }
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitution = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitution});
    }
  }
  return row.back();
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  if (text.find('\0') != std::string_view::npos) {  // the parser would stop there and take what stands before
    throw InputError(where, "holds a zero byte, it is no text", "this is not a file of the expected kind");
  }
  Guard guard(text, where);
  Json::sax_parse(text, &guard);
  return Json::parse(text);
}

Json read_json_file(const std::string& path) { return parse_json(read_text_file(path), path); }

std::string dump_json(const Json& value) {
  refuse_non_finite(value, "");
  return value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string dump_json_line(const Json& value) {
  refuse_non_finite(value, "");
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool JsonView::is_object() const { return value_->is_object(); }
bool JsonView::is_array() const { return value_->is_array(); }
bool JsonView::is_string() const { return value_->is_string(); }
bool JsonView::is_number() const { return value_->is_number(); }
bool JsonView::is_null() const { return value_->is_null(); }
std::size_t JsonView::size() const { return value_->size(); }

bool JsonView::has(std::string_view key) const {
  if (!value_->is_object()) return false;
  const auto found = value_->find(std::string(key));
  return found != value_->end() && !found->is_null();
}

std::vector<std::string> JsonView::keys() const {
  if (!value_->is_object()) wrong_type("an object");
  std::vector<std::string> names;
  for (const auto& [key, child] : value_->items()) names.push_back(key);
  return names;
}

JsonView JsonView::at(std::string_view key) const {
  if (!value_->is_object()) wrong_type("an object");
  const auto found = value_->find(std::string(key));
  if (found == value_->end()) throw InputError(where_, "\"" + std::string(key) + "\" is missing", "add it");
  const bool root = where_.find(": /") == std::string::npos;
  return {*found, where_ + (root ? ": /" : "/") + std::string(key)};
}

JsonView JsonView::at(std::size_t index) const {
  if (!value_->is_array()) wrong_type("an array");
  if (index >= value_->size()) throw InputError(where_, "has no element " + std::to_string(index));
  const bool root = where_.find(": /") == std::string::npos;
  return {(*value_)[index], where_ + (root ? ": /" : "/") + std::to_string(index)};
}

std::int64_t JsonView::as_int(std::int64_t low, std::int64_t high) const {
  if (!value_->is_number()) wrong_type("a whole number");
  if (value_->is_number_unsigned() && value_->get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
    throw InputError(where_, "is too large: " + value_->dump(), "write at most " + std::to_string(high));
  }
  if (value_->is_number_float()) {
    const double number = value_->get<double>();
    if (number != std::floor(number) || std::abs(number) > 9e15) wrong_type("a whole number");
  }
  const auto number = value_->get<std::int64_t>();
  if (number < low || number > high) {
    throw InputError(
        where_, "is " + std::to_string(number) + ", expected " + std::to_string(low) + " to " + std::to_string(high),
        "correct the number");
  }
  return number;
}

double JsonView::as_number(double low, double high) const {
  if (!value_->is_number()) wrong_type("a number");
  const double number = value_->get<double>();
  if (!std::isfinite(number) || number < low || number > high) {
    throw InputError(where_, "is " + value_->dump() + ", outside its range",
                     high > 1e300 ? "expected at least " + Json(low).dump()
                                  : "expected " + Json(low).dump() + " to " + Json(high).dump());
  }
  return number;
}

bool JsonView::as_bool() const {
  if (!value_->is_boolean()) wrong_type("true or false");
  return value_->get<bool>();
}

std::string JsonView::as_string() const {
  if (!value_->is_string()) wrong_type("a string");
  return value_->get<std::string>();
}

std::optional<std::int64_t> JsonView::find_int(std::string_view key, std::int64_t low, std::int64_t high) const {
  if (!has(key)) return std::nullopt;
  return at(key).as_int(low, high);
}

std::optional<double> JsonView::find_number(std::string_view key, double low, double high) const {
  if (!has(key)) return std::nullopt;
  return at(key).as_number(low, high);
}

std::optional<bool> JsonView::find_bool(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return at(key).as_bool();
}

std::optional<std::string> JsonView::find_string(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return at(key).as_string();
}

void JsonView::refuse_unknown_keys(const std::vector<std::string_view>& known) const {
  for (const std::string& key : keys()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const auto near = nearest_name(key, known);
    throw InputError(where_, "\"" + key + "\" is not a known field",
                     near ? "did you mean \"" + *near + "\"?" : "remove it");
  }
}

void JsonView::wrong_type(std::string_view expected) const {
  std::string shown = value_->dump(-1, ' ', false, Json::error_handler_t::replace);
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  throw InputError(where_, "expected " + std::string(expected) + ", found " + shown, "correct the value");
}

std::optional<std::string> nearest_name(std::string_view name, const std::vector<std::string_view>& candidates) {
  std::size_t best = std::max<std::size_t>(1, name.size() / 3) + 1;
  std::optional<std::string> nearest;
  for (const std::string_view candidate : candidates) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best) {
      best = distance;
      nearest = std::string(candidate);
    }
  }
  return nearest;
}

}  // namespace moecast
