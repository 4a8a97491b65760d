#pragma once
#include <cstdint>
#include <string>

namespace nanobind {
class module_;
class handle;
}  // namespace nanobind

namespace moecast::python {

/// One a file of this folder.
void bind_errors(nanobind::module_& m);
void bind_quantities(nanobind::module_& m);
void bind_architecture(nanobind::module_& m);
void bind_predictor(nanobind::module_& m);
void bind_batches(nanobind::module_& m);
void bind_files(nanobind::module_& m);

/// A whole number of Python's or NumPy's. @throws UsageError for anything else, or one out of range.
std::int64_t whole(const std::string& name, nanobind::handle value, std::int64_t low, std::int64_t high);

}  // namespace moecast::python
