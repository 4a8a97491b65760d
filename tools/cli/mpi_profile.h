#pragma once
#include <string>

namespace moecast {

/// What `profile --device mpi` was asked, as typed.
struct MpiProfileOptions {
  std::string ranks;   ///< needed
  std::string mpirun;  ///< empty: $MOECAST_MPIRUN, else mpirun
  std::string matrix;  ///< file: a byte matrix, or a list of them
  std::string repeats = "11";
  std::string out;  ///< file; empty: none
  std::string format = "table";
};

/// Times point to point, the collectives and all-to-all-v between MPI ranks. @return the exit code.
/// @throws UsageError on a wrong flag, InputError on a broken matrix, DeviceError when ranks do not run.
int run_mpi_profile(const MpiProfileOptions& options);

}  // namespace moecast
