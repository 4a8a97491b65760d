#pragma once
#include <string>

namespace moecast {

/// `moecast validate --ep`, as typed.
struct EpValidateOptions {
  std::string cluster;  ///< name or file; empty: $MOECAST_CLUSTER
  std::string ranks;    ///< empty: all of the cluster
  std::string mpirun;   ///< empty: $MOECAST_MPIRUN
  std::string cases = "48";
  std::string repeats = "7";
  std::string seed = "1";
  std::string data;
  std::string format = "table";
};

/// @return 0 when all bars are met, 1 when one is missed.
int run_validate_ep(const EpValidateOptions& options);

}  // namespace moecast
