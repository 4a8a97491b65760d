#pragma once
#include <atomic>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace moecast {

/// Many independent rows of text, made by several threads and written in their order. Memory does not grow with their
/// number: threads run at most a few blocks ahead of what is written.
struct Sweep {
  std::size_t points = 0;
  std::size_t first = 0;  ///< point to begin with
  int threads = 1;
  /// The rows of points [begin, end), each with its end of line. Called from several threads at once.
  std::function<std::string(std::size_t begin, std::size_t end)> rows;
  /// Takes rows in their order, in the thread that runs the sweep.
  std::function<void(std::string_view rows)> write;
  /// Told of the points that are done, in the thread that runs the sweep, several times a second.
  std::function<void(std::size_t done)> progress = [](std::size_t) {};
};

/// Runs until every point is written, or until `stop` is set and what is being made is done.
///
/// @return points done, those before `first` included: `points` unless stopped.
/// @throws what `rows` or `write` throw, after all threads have ended. Rows that were written stay so.
std::size_t run_sweep(const Sweep& sweep, const std::atomic<bool>& stop);

}  // namespace moecast
