#pragma once
#include <atomic>
#include <functional>
#include <string>

#include "profiler/mpi/plan.h"

namespace moecast {

/// How MPI programs are started here.
struct MpiLauncher {
  std::string command;  ///< "mpirun --host a,b"; split at spaces; -n and the program are added
  std::string program;  ///< moecast-mpi
  std::function<void(double done)> progress;
  const std::atomic<bool>* interrupted = nullptr;
};

/// `given`, else $MOECAST_MPIRUN, else "mpirun".
std::string mpirun_command(const std::string& given);
/// moecast-mpi beside this program. @throws DeviceError when there is none (built without MPI).
std::string find_mpi_program();

/// Runs the plan over its ranks and reads what they measured. Nothing is left behind.
/// @throws DeviceError with the last lines of the program when it fails or cannot be started; UsageError for an empty
/// command; DeviceError "interrupted".
MpiResults run_mpi_plan(const MpiPlan& plan, const MpiLauncher& launcher);

}  // namespace moecast
