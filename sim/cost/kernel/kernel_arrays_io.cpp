#include "sim/cost/kernel/kernel_arrays_io.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <set>

#include "models/core/compression.h"
#include "models/core/error.h"

namespace moecast {
namespace {

static_assert(std::endian::native == std::endian::little, "kernels.bin is little endian");

constexpr double kSteps = 32767;
constexpr double kOwnSteps = 127;
/// Gaps are kept in eighths of a doubling, up to 31.
constexpr double kGapsADoubling = 8;

void append_steps(std::string& out, const Eigen::MatrixXf& matrix, double step) {
  for (Eigen::Index i = 0; i < matrix.rows(); ++i) {
    for (Eigen::Index j = 0; j < matrix.cols(); ++j) {
      const double value = step == 0 ? 0 : std::round(static_cast<double>(matrix(i, j)) / step);
      const auto stored = static_cast<std::int16_t>(std::clamp(value, -kSteps, kSteps));
      char bytes[sizeof stored];
      std::memcpy(bytes, &stored, sizeof stored);
      out.append(bytes, sizeof stored);
    }
  }
}

template <class Stored>
void append_value(std::string& out, Stored stored) {
  char bytes[sizeof stored];
  std::memcpy(bytes, &stored, sizeof stored);
  out.append(bytes, sizeof stored);
}

/// Features take few values: a list of them, and one byte an entry. Columns with more than 255 keep their values.
void append_features(std::string& out, const Eigen::MatrixXf& features) {
  for (Eigen::Index f = 0; f < features.cols(); ++f) {
    const std::set<float> values(features.col(f).begin(), features.col(f).end());
    const bool coded = values.size() < 256;
    append_value(out, static_cast<std::uint8_t>(coded ? values.size() : 0));
    if (!coded) {
      for (const float value : features.col(f)) append_value(out, value);
      continue;
    }
    for (const float value : values) append_value(out, value);
    for (const float value : features.col(f)) {
      append_value(out, static_cast<std::uint8_t>(std::distance(values.begin(), values.find(value))));
    }
  }
}

/// Rows in 8 bits of their own largest entry.
void append_own(std::string& out, const Eigen::MatrixXf& own) {
  for (Eigen::Index i = 0; i < own.rows(); ++i) {
    const auto step =
        static_cast<float>(rounded_to_six(static_cast<double>(own.row(i).cwiseAbs().maxCoeff()) / kOwnSteps));
    append_value(out, step);
    for (const float value : own.row(i)) {
      const double steps = step == 0 ? 0 : std::round(static_cast<double>(value / step));
      append_value(out, static_cast<std::int8_t>(std::clamp(steps, -kOwnSteps, kOwnSteps)));
    }
  }
}

void append_gaps(std::string& out, const Eigen::MatrixXf& gaps) {
  for (Eigen::Index i = 0; i < gaps.rows(); ++i) {
    for (const float gap : gaps.row(i)) {
      const double steps = std::round(static_cast<double>(gap) * kGapsADoubling);
      append_value(out, static_cast<std::uint8_t>(std::clamp(steps, 0.0, 255.0)));
    }
  }
}

/// Lower triangle in steps.
void append_triangle(std::string& out, const Eigen::MatrixXf& matrix, double step) {
  for (Eigen::Index i = 0; i < matrix.rows(); ++i) append_steps(out, matrix.row(i).head(i + 1), step);
}

class Reader {
 public:
  Reader(std::string_view data, const std::string& where) : data_(data), where_(where) {}

  template <class Stored>
  Eigen::MatrixXf matrix(std::int64_t rows, std::int64_t columns, float step) {
    const std::uint64_t bytes = static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(columns) * sizeof(Stored);
    if (bytes > data_.size()) throw InputError(where_, "is cut short", kCalibrateAgain);
    Eigen::MatrixXf out(rows, columns);
    const char* from = data_.data();
    for (Eigen::Index i = 0; i < rows; ++i) {
      for (Eigen::Index j = 0; j < columns; ++j, from += sizeof(Stored)) {
        Stored stored;
        std::memcpy(&stored, from, sizeof stored);
        out(i, j) = static_cast<float>(stored) * step;
      }
    }
    if (!out.allFinite()) throw InputError(where_, "holds values that are not finite", kCalibrateAgain);
    data_.remove_prefix(bytes);
    return out;
  }
  Eigen::MatrixXf features(std::int64_t rows, std::int64_t columns) {
    Eigen::MatrixXf out(rows, columns);
    for (Eigen::Index f = 0; f < columns; ++f) {
      const auto count = static_cast<std::int64_t>(matrix<std::uint8_t>(1, 1, 1)(0, 0));
      if (count == 0) {
        out.col(f) = matrix<float>(rows, 1, 1);
        continue;
      }
      const Eigen::MatrixXf values = matrix<float>(count, 1, 1);
      const Eigen::MatrixXf codes = matrix<std::uint8_t>(rows, 1, 1);
      for (Eigen::Index i = 0; i < rows; ++i) {
        const auto code = static_cast<Eigen::Index>(codes(i, 0));
        if (code >= count) throw InputError(where_, "holds a feature that is not in its list", kCalibrateAgain);
        out(i, f) = values(code, 0);
      }
    }
    return out;
  }
  Eigen::MatrixXf own(std::int64_t rows, std::int64_t columns) {
    Eigen::MatrixXf out(rows, columns);
    for (Eigen::Index i = 0; i < rows; ++i) {
      const float step = matrix<float>(1, 1, 1)(0, 0);
      out.row(i) = matrix<std::int8_t>(1, columns, step);
    }
    return out;
  }
  Eigen::MatrixXf triangle(std::int64_t size, float step) {
    Eigen::MatrixXf out = Eigen::MatrixXf::Zero(size, size);
    for (Eigen::Index i = 0; i < size; ++i) out.row(i).head(i + 1) = matrix<std::int16_t>(1, i + 1, step);
    return out;
  }
  [[nodiscard]] bool at_end() const { return data_.empty(); }

 private:
  std::string_view data_;
  const std::string& where_;
};

}  // namespace

double rounded_to_six(double value) {
  if (value == 0 || !std::isfinite(value)) return 0;
  const double scale = std::pow(10.0, 5 - std::floor(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

double array_step(const Eigen::MatrixXf& matrix) {
  return matrix.size() == 0 ? 0 : rounded_to_six(static_cast<double>(matrix.cwiseAbs().maxCoeff()) * 1.00001 / kSteps);
}

std::string kernel_arrays_bytes(const KernelArrays& arrays) {
  std::string bytes;
  append_features(bytes, arrays.features);
  append_own(bytes, arrays.own);
  append_gaps(bytes, arrays.gaps);
  if (arrays.weights.rows() > 0) append_steps(bytes, arrays.weights, array_step(arrays.weights));
  append_triangle(bytes, arrays.landmark_factor, array_step(arrays.landmark_factor));
  return bytes;
}

KernelArrays read_kernel_arrays(const KernelArraySizes& sizes, std::string_view stream, const std::string& where) {
  // zlib packs at most 1032 to 1: a larger claim would only reserve memory.
  if (sizes.bytes > 1100 * (std::ssize(stream) + 1)) throw InputError(where, "is damaged", kCalibrateAgain);
  const std::string bytes = decompress_bytes(stream, static_cast<std::size_t>(sizes.bytes), where);
  Reader reader(bytes, where);
  KernelArrays arrays;
  arrays.features = reader.features(sizes.curves, sizes.features);
  arrays.own = reader.own(sizes.curves, sizes.own_nodes);
  arrays.gaps = reader.matrix<std::uint8_t>(sizes.curves, sizes.own_nodes, static_cast<float>(1 / kGapsADoubling));
  if (sizes.kriged) arrays.weights = reader.matrix<std::int16_t>(sizes.curves, sizes.nodes, sizes.weight_step);
  arrays.landmark_factor = reader.triangle(sizes.landmarks, sizes.landmark_step);
  if (!reader.at_end()) throw InputError(where, "holds more than its header says", kCalibrateAgain);
  return arrays;
}

}  // namespace moecast
