#include "tools/cli/mpi_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/quantity_text.h"
#include "models/core/statistics.h"
#include "tools/cli/output.h"
#include "tools/cli/progress_bar.h"
#include "tools/loop/interrupt.h"
#include "tools/loop/mpi_runner.h"

namespace moecast {
namespace {

constexpr std::array<MpiKind, 5> kKinds{MpiKind::point_to_point, MpiKind::all_reduce, MpiKind::all_gather,
                                        MpiKind::reduce_scatter, MpiKind::all_to_all};
constexpr std::array<double, 6> kBytes{4096, 32768, 262144, 1048576, 4194304, 16777216};
constexpr std::int64_t kMostRanks = 4096;

void add_matrices(const std::string& path, MpiPlan& plan) {
  const Json json = parse_json(read_text_file(path), path);
  const JsonView view(json, path);
  const bool one = view.is_array() && view.size() > 0 && view.at(std::size_t{0}).is_array() &&
                   view.at(std::size_t{0}).size() > 0 && !view.at(std::size_t{0}).at(std::size_t{0}).is_array();
  const auto add = [&](const JsonView& matrix) {
    MpiPoint point;
    point.kind = MpiKind::all_to_all_v;
    point.matrix = parse_byte_matrix(matrix, plan.ranks);
    point.bytes = point.matrix->total();
    plan.points.push_back(std::move(point));
  };
  if (one) return add(view);
  if (!view.is_array() || view.size() == 0) throw InputError(path, "is no byte matrix and no list of them");
  for (std::size_t i = 0; i < view.size(); ++i) add(view.at(i));
}

/// Bytes that the busiest rank sends or receives, a second.
double port_rate(const MpiPoint& point, int ranks, double seconds) {
  const double n = ranks;
  double bytes = 0;
  switch (point.kind) {
    case MpiKind::all_reduce: bytes = 2 * point.bytes * (n - 1) / n; break;
    case MpiKind::point_to_point: bytes = point.bytes; break;
    case MpiKind::all_to_all_v:
      for (int rank = 0; rank < ranks; ++rank) {
        bytes = std::max({bytes, point.matrix->egress(rank), point.matrix->ingress(rank)});
      }
      break;
    default: bytes = point.bytes * (n - 1) / n;
  }
  return bytes / seconds;
}

}  // namespace

int run_mpi_profile(const MpiProfileOptions& options) {
  const InterruptGuard guard;
  const Format format = parse_format(options.format);
  if (options.ranks.empty()) {
    throw UsageError("--ranks", "is needed with --device mpi", "moecast profile --device mpi --ranks 4");
  }
  MpiPlan plan;
  plan.ranks = static_cast<int>(parse_count(options.ranks, "--ranks", 2, kMostRanks));
  plan.repeats = static_cast<int>(parse_count(options.repeats, "--repeats", 1, 1000));
  for (const MpiKind kind : kKinds) {
    for (const double bytes : kBytes) {
      MpiPoint point;
      point.kind = kind;
      point.bytes = bytes;
      plan.points.push_back(std::move(point));
    }
  }
  if (!options.matrix.empty()) add_matrices(options.matrix, plan);
  MpiLauncher launcher;
  launcher.command = mpirun_command(options.mpirun);
  launcher.program = find_mpi_program();
  launcher.interrupted = &InterruptGuard::flag();
  ProgressBar bar;
  launcher.progress = [&bar](double done) { bar.update("measuring", done, Seconds(0)); };
  MpiResults results;
  try {
    results = run_mpi_plan(plan, launcher);
  } catch (const MpiInterrupted&) {
    bar.clear();
    note("interrupted: nothing is kept of a profile over ranks");
    return 130;
  }
  bar.clear();
  Table table{{"operation", "ranks", "bytes", "median", "from", "to", "busiest port"}, {}};
  std::vector<Json> records;
  for (std::size_t i = 0; i < plan.points.size(); ++i) {
    const MpiPoint& point = plan.points[i];
    const std::vector<double>& seconds = results.points[i].seconds;
    const double middle = median(seconds);
    const auto [least, most] = std::ranges::minmax(seconds);
    table.rows.push_back({std::string(to_string(point.kind)), std::to_string(plan.ranks),
                          format_bytes(Bytes(point.bytes)), format_seconds(Seconds(middle)),
                          format_seconds(Seconds(least)), format_seconds(Seconds(most)),
                          format_bytes(Bytes(port_rate(point, plan.ranks, middle))) + "/s"});
    records.push_back({{"operation", to_string(point.kind)},
                       {"ranks", plan.ranks},
                       {"bytes", point.bytes},
                       {"library", results.library},
                       {"latency_s", middle},
                       {"latency_least_s", least},
                       {"latency_most_s", most},
                       {"repeats", seconds.size()}});
  }
  Json document{{"measurements", records}, {"inputs", {{"mpirun", launcher.command}, {"ranks", plan.ranks}}}};
  if (!options.out.empty()) write_file_atomically(options.out, document.dump(1) + "\n");
  if (format == Format::table || format == Format::md) {
    write_stdout(
        render_table(table, format) +
        "\nbytes = a rank's whole buffer (all-to-all-v: of all ranks); times of the slowest rank, of single calls "
        "that start\nfrom rest: loops of a call, warm, take less.\n");
  } else if (format == Format::json) {
    write_stdout(render_records({document}, format, true));
  } else {
    write_stdout(render_records(records, format, false));
  }
  return 0;
}

}  // namespace moecast
