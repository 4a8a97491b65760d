#pragma once
#include <vector>

#include "hwprofiles/kernel_samples.h"

namespace moecast {

/// Rows of a linear layer that stand out of their own curve where its kernel has no such steps: more than 1.5 times the
/// median of three positions on either side, while more rows take less again. Of vLLM's CUTLASS kernel in fp8 H100,
/// H200 and B300 show 1 among 30,000, B200 354 among 10,000, at 3 to 8 % of the shapes at any number of rows from 2 to
/// 192: the machine was busy. Kernels that pick tiles by the shape (DeepGEMM) show such steps on every machine: they
/// are left as they are, as is the first position of a curve.
/// @return one flag a row.
std::vector<bool> spiked_rows(const KernelSamples& samples);

}  // namespace moecast
