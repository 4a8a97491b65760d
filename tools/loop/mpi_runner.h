#pragma once
#include <atomic>
#include <functional>
#include <string>

#include "models/core/error.h"
#include "profiler/mpi/plan.h"

namespace moecast {

/// How MPI programs are started here.
struct MpiLauncher {
  std::string command;  ///< "mpirun --host a,b"; split at spaces; -n and the program are added
  std::string program;  ///< moecast-mpi
  std::function<void(double done)> progress;
  const std::atomic<bool>* interrupted = nullptr;
};

/// Somebody asked to stop before the plan was done.
class MpiInterrupted : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

/// `given`, else $MOECAST_MPIRUN, else "mpirun".
std::string mpirun_command(const std::string& given);
/// moecast-mpi beside this program. @throws DeviceError when there is none (built without MPI).
std::string find_mpi_program();

/// Runs the plan over its ranks and reads what they measured. Nothing is left behind, even where this process is
/// killed: a process beside it ends the ranks and removes their files.
/// @throws DeviceError with the last lines of the program when it fails, cannot be started or measures nothing;
/// UsageError for an empty command; MpiInterrupted.
MpiResults run_mpi_plan(const MpiPlan& plan, const MpiLauncher& launcher);

}  // namespace moecast
