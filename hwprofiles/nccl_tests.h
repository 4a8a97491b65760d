#pragma once
#include <string>

#include "hwprofiles/kernel_samples.h"

namespace moecast {

/// What the output of nccl-tests does not always say.
struct NcclTestsOptions {
  std::string operation;  ///< all_gather, reduce_scatter, alltoall, all_reduce; empty: from the output
  std::string version;    ///< of NCCL; empty: from the output
  int nodes = 0;          ///< 0: the distinct hosts of the output
};

/// Reads what a program of nccl-tests prints (out-of-place times of every size), as samples of layout "nccl".
///
/// Operation from "Collective test starting: all_gather_perf" or the option; ranks and hosts from the list of devices;
/// whether graphs were replayed from "graph: N".
/// @throws InputError naming the line: no table, a row that does not fit its header, an unknown type; or naming the
/// option that would say what the output does not.
KernelTable read_nccl_tests(const std::string& path, const NcclTestsOptions& options);

}  // namespace moecast
