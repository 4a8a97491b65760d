#pragma once
#include <string>
#include <vector>

namespace moecast {

/// The Python that has the package: $MOECAST_PYTHON, else python3 of the PATH.
std::string python_program();

/// Runs `python -m MODULE WORDS` and waits for it.
/// @param quiet  its errors are not shown. @return its exit code, 128 + signal when it was killed.
/// @throws DeviceError where there is no such Python.
int run_python_module(const std::vector<std::string>& module_and_words, bool quiet);

}  // namespace moecast
