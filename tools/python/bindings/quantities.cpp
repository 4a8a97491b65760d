#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "models/core/error.h"
#include "models/core/quantity_text.h"
#include "tools/cli/query_numbers.h"
#include "tools/python/bindings/bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace moecast::python {
namespace {

bool below(nb::handle a, nb::handle b) {
  const int answer = PyObject_RichCompareBool(a.ptr(), b.ptr(), Py_LT);
  if (answer < 0) throw nb::python_error();
  return answer == 1;
}

std::string text_of(nb::handle value) { return nb::cast<std::string>(nb::str(value)); }

/// @param high  None: there is no limit.
nb::int_ checked_whole(const std::string& name, nb::handle value, nb::handle low, nb::handle high) {
  const nb::object index = nb::steal(PyBool_Check(value.ptr()) ? nullptr : PyNumber_Index(value.ptr()));
  PyErr_Clear();
  if (!index.is_valid()) {
    throw UsageError(name, nb::cast<std::string>(nb::repr(value)) + " is not a whole number", "write e.g. 64");
  }
  if (below(index, low) || (!high.is_none() && below(high, index))) {
    throw UsageError(
        name, text_of(index) + " is out of range",
        "expected " + (high.is_none() ? "at least " + text_of(low) : text_of(low) + " to " + text_of(high)));
  }
  return nb::cast<nb::int_>(index);
}

}  // namespace

std::int64_t whole(const std::string& name, nb::handle value, std::int64_t low, std::int64_t high) {
  return nb::cast<std::int64_t>(checked_whole(name, value, nb::int_(low), nb::int_(high)));
}

void bind_quantities(nb::module_& m) {
  m.attr("MOST") = kMaxSize;
  m.def(
      "whole", &checked_whole, "name"_a, "value"_a.none(), "low"_a = 0, "high"_a.none() = kMaxSize,
      nb::sig("def whole(name: str, value: object, low: int = 0, high: int | None = MOST) -> int"),
      "The value as an int. Raises UsageError, in the words of the command line, unless it is a whole number (Python's "
      "or NumPy's) from `low` to `high`; None: however large.");
  m.def(
      "parse_seconds",
      [](const std::string& text, const std::string& where) { return parse_seconds(text, where).value(); }, "text"_a,
      "where"_a, "Seconds of a text with a unit, e.g. 50ms, as the command line reads it. Raises UsageError.");
  m.def(
      "parse_bytes", [](const std::string& text, const std::string& where) { return parse_bytes(text, where).value(); },
      "text"_a, "where"_a, "Bytes of a text with a unit, e.g. 16GiB. Raises UsageError.");
  m.def(
      "parse_flops", [](const std::string& text, const std::string& where) { return parse_flops(text, where).value(); },
      "text"_a, "where"_a, "FLOPs of a text with a unit, e.g. 100GFLOP or 100G. Raises UsageError.");
}

}  // namespace moecast::python
