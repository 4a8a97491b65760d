#include <nanobind/nanobind.h>

#include "models/core/error.h"
#include "tools/python/bindings/bindings.h"

namespace nb = nanobind;

namespace moecast::python {

void bind_errors(nb::module_& m) {
  // The last one registered is tried first: derived classes after their base.
  nb::exception<Error> base(m, "Error", PyExc_RuntimeError);
  nb::exception<DeviceError> device(m, "DeviceError", base.ptr());
  // What an argument or a file does wrong is a ValueError too.
  const nb::object both = nb::make_tuple(nb::borrow(base.ptr()), nb::borrow(PyExc_ValueError));
  nb::exception<InputError> input(m, "InputError", both.ptr());
  nb::exception<UsageError> usage(m, "UsageError", both.ptr());
  base.doc() = "Base of the errors of moecast: says where, what is wrong and how to mend it.";
  device.doc() = "The machine lacks or refuses something (exit code 4 of the command line).";
  input.doc() = "A file, an architecture or an array cannot be used (exit code 3).";
  usage.doc() = "An argument is wrong or contradicts another (exit code 2).";
  nb::register_exception_translator(
      [](const std::exception_ptr& raised, void* types) {
        const auto with_hint = [](const Error& error) {
          return error.hint().empty() ? std::string(error.what())
                                      : std::string(error.what()) + " (" + error.hint() + ")";
        };
        const nb::handle all(static_cast<PyObject*>(types));
        try {
          std::rethrow_exception(raised);
        } catch (const UsageError& error) {
          PyErr_SetString(nb::object(all[2]).ptr(), with_hint(error).c_str());
        } catch (const InputError& error) {
          PyErr_SetString(nb::object(all[1]).ptr(), with_hint(error).c_str());
        } catch (const DeviceError& error) {
          PyErr_SetString(nb::object(all[0]).ptr(), with_hint(error).c_str());
        }
      },
      nb::make_tuple(device, input, usage).release().ptr());
}

}  // namespace moecast::python

NB_MODULE(_core, m) {
  m.doc() = "The C++ core of moecast. Use the package moecast, which wraps it.";
  moecast::python::bind_errors(m);
  moecast::python::bind_quantities(m);
  moecast::python::bind_architecture(m);
  moecast::python::bind_predictor(m);
  moecast::python::bind_batches(m);
  moecast::python::bind_files(m);
}
