#pragma once

namespace moecast {

/// Starts this program again with OPENBLAS_CORETYPE where OpenBLAS would otherwise choose slow kernels: the library
/// reads it when it is loaded, which is before main. Returns when there is nothing to do (or the start fails, with a
/// warning).
void restart_with_openblas_core(char** argv);

}  // namespace moecast
