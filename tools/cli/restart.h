#pragma once

namespace moecast {

/// Starts this program again with what OpenBLAS must find in the environment when it is loaded, which is before main:
/// OPENBLAS_CORETYPE where it would otherwise choose slow kernels, and OPENBLAS_THREAD_TIMEOUT, because its idle
/// threads spin for 25 ms by default and then take a CPU away from whatever is measured next (layers of two OpenMP
/// threads were 2 to 17 times slower beside them). Returns when there is nothing to do (or the start fails, with a
/// warning). What the user has set stays.
void restart_for_openblas(char** argv);

}  // namespace moecast
