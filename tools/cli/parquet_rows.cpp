#include "tools/cli/parquet_rows.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "models/core/error.h"
#include "tools/cli/python_package.h"

namespace moecast {
namespace {

constexpr const char* kModule = "moecast.parquet";
constexpr const char* kPyarrowHint =
    "Parquet is written by the Python package: pip install '.[parquet]', and MOECAST_PYTHON=/path/to/python3; "
    "or write -o FILE.csv";

}  // namespace

bool has_parquet() { return run_python_module({kModule, "--check"}, true) == 0; }

void require_parquet() {
  bool found = false;
  try {
    found = has_parquet();
  } catch (const DeviceError& error) {
    throw DeviceError(error.where(), error.problem(), kPyarrowHint);
  }
  if (!found) throw DeviceError(python_program(), "has no moecast package with pyarrow", kPyarrowHint);
}

void write_parquet(const std::string& rows, const std::string& file, const ParquetColumns& columns,
                   const std::string& question) {
  const int code =
      run_python_module({kModule, rows, file, "--text", fmt::format("{}", fmt::join(columns.text, ",")), "--whole",
                         fmt::format("{}", fmt::join(columns.whole, ",")), "--question", question},
                        false);
  if (code == 0) return;
  throw DeviceError(file, fmt::format("cannot be written as Parquet ({} ended with {})", python_program(), code),
                    "the rows are kept in " + rows + ": the same command goes on from there");
}

}  // namespace moecast
