#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "sim/cost/kernel/kernel_model.h"

namespace moecast {

inline constexpr const char* kCalibrateAgain = "make it again: moecast calibrate PROFILE";

/// Everything that says how long a kernel's arrays are.
struct KernelArraySizes {
  std::int64_t curves = 0, features = 0, nodes = 0, own_nodes = 0, landmarks = 0, bytes = 0;
  bool kriged = false;
  float weight_step = 0, landmark_step = 0;
};

/// Six significant digits.
double rounded_to_six(double value);
/// Matrices are kept in steps of 1/32767 of their largest entry: 16 bits are below every noise.
double array_step(const Eigen::MatrixXf& matrix);

/// Arrays of a kernel as kernels.bin packs them, before compression.
std::string kernel_arrays_bytes(const KernelArrays& arrays);
/// @param stream  compressed. @throws InputError when it is damaged or does not fit the sizes.
KernelArrays read_kernel_arrays(const KernelArraySizes& sizes, std::string_view stream, const std::string& where);

}  // namespace moecast
