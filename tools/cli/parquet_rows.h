#pragma once
#include <string>
#include <vector>

namespace moecast {

/// Columns that are no floating-point numbers.
struct ParquetColumns {
  std::vector<std::string> text;
  std::vector<std::string> whole;
};

/// The Python package is there, with pyarrow. @throws DeviceError where there is no Python.
bool has_parquet();
/// Before anything is computed. @throws DeviceError where Python, the package or pyarrow is missing.
void require_parquet();

/// Makes a Parquet file of CSV rows, by the Python package: Debian has no C++ library for it. The file is there as a
/// whole or not at all.
/// @param question  file that says what the rows answer: goes into the metadata.
/// @throws DeviceError when it cannot be written.
void write_parquet(const std::string& rows, const std::string& file, const ParquetColumns& columns,
                   const std::string& question);

}  // namespace moecast
