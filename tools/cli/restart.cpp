#include "tools/cli/restart.h"

#include <unistd.h>

#include <cstdlib>

#include "profiler/cpu/gemm.h"
#include "tools/cli/output.h"

namespace moecast {
namespace {

/// Idle threads sleep after 2^this cycles: half a millisecond, longer than the gaps between the GEMMs of a layer.
constexpr const char* kThreadTimeout = "20";

}  // namespace

void restart_for_openblas(char** argv) {
  bool changed = false;
  const auto core = openblas_core_override();
  if (core) changed = setenv("OPENBLAS_CORETYPE", core->c_str(), 1) == 0;
  if (std::getenv("OPENBLAS_THREAD_TIMEOUT") == nullptr) {
    changed = setenv("OPENBLAS_THREAD_TIMEOUT", kThreadTimeout, 1) == 0 || changed;
  }
  if (!changed) return;
  execv("/proc/self/exe", argv);
  warn("cannot start again with the environment that OpenBLAS needs: it may run slow kernels");
}

}  // namespace moecast
