#pragma once

namespace nanobind {
class module_;
}

namespace moecast::python {

/// One a file of this folder.
void bind_errors(nanobind::module_& m);
void bind_architecture(nanobind::module_& m);
void bind_predictor(nanobind::module_& m);
void bind_batches(nanobind::module_& m);
void bind_files(nanobind::module_& m);

}  // namespace moecast::python
