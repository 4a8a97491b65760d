#include "tools/cli/restart.h"

#include <unistd.h>

#include <cstdlib>

#include "profiler/cpu/gemm.h"
#include "tools/cli/output.h"

namespace moecast {

void restart_with_openblas_core(char** argv) {
  const auto core = openblas_core_override();
  if (!core || setenv("OPENBLAS_CORETYPE", core->c_str(), 1) != 0) return;
  execv("/proc/self/exe", argv);
  warn("cannot start again with OPENBLAS_CORETYPE=" + *core + ": OpenBLAS may run slow kernels");
}

}  // namespace moecast
