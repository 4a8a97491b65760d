// moecast-mpi PLAN RESULTS: times the points of a plan over MPI ranks. Started by moecast through mpirun.
#include <fmt/format.h>
#include <mpi.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/quantity_text.h"
#include "models/core/statistics.h"
#include "profiler/mpi/plan.h"
#include "profiler/mpi/program/layer.h"
#include "profiler/mpi/program/transport.h"

namespace moecast {
namespace {

constexpr double kMostError = 1e-3;
/// Work takes milliseconds and is disturbed more easily than what waits for a network.
constexpr int kWorkRepeats = 3;
constexpr int kBarriersToStart = 4;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::size_t floats(double bytes) { return static_cast<std::size_t>(std::max(1.0, bytes / sizeof(float))); }

/// What earlier messages left in queues and in token buckets is gone when the next repeat starts.
void settle() {
  wait_at_barrier();
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  // The first one waits for who sleeps longest; the next find the library's code in the cache again.
  for (int i = 0; i < kBarriersToStart; ++i) wait_at_barrier();
}

/// @throws DeviceError where so many floats are more than the machine has memory for.
void need_memory(double count) {
  const double there = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  const double bytes = count * sizeof(float);
  if (bytes < there) return;
  throw DeviceError(fmt::format("rank {}", own_rank()),
                    fmt::format("sends and receives {}, this machine has {} of memory", format_bytes(Bytes(bytes)),
                                format_bytes(Bytes(there))),
                    "smaller entries of the matrix: they are bytes");
}

/// What a collective does once, on buffers of its own.
class Collective {
 public:
  explicit Collective(const MpiPoint& point) : kind_(point.kind), ranks_(rank_count()) {
    const auto ranks = static_cast<std::size_t>(ranks_);
    if (point.matrix) {
      const int self = own_rank();
      for (int peer = 0; peer < ranks_; ++peer) {
        send_counts_.push_back(static_cast<std::size_t>(point.matrix->at(self, peer) / sizeof(float)));
        receive_counts_.push_back(static_cast<std::size_t>(point.matrix->at(peer, self) / sizeof(float)));
      }
    } else {
      count_ = floats(point.bytes);
      send_counts_.assign(ranks, std::max<std::size_t>(1, count_ / ranks));
      receive_counts_ = send_counts_;
    }
    const auto sum = [](const std::vector<std::size_t>& counts) {
      std::size_t all = 0;
      for (const std::size_t count : counts) all += count;
      return all;
    };
    const std::size_t sent = std::max(count_, sum(send_counts_));
    const std::size_t received = std::max(count_, sum(receive_counts_));
    need_memory(static_cast<double>(sent) + static_cast<double>(received));
    send_.assign(sent, 1.0F);
    receive_.assign(received, 0.0F);
  }

  void run() {
    const std::size_t part = send_counts_.front();
    switch (kind_) {
      case MpiKind::point_to_point: return point_to_point(send_.data(), receive_.data(), count_);
      case MpiKind::all_reduce: return all_reduce(send_.data(), receive_.data(), count_);
      case MpiKind::all_gather: return all_gather(send_.data(), receive_.data(), part);
      case MpiKind::reduce_scatter: return reduce_scatter(send_.data(), receive_.data(), part);
      default: return exchange(send_.data(), send_counts_, receive_.data(), receive_counts_);
    }
  }

 private:
  MpiKind kind_;
  int ranks_;
  std::size_t count_ = 0;
  std::vector<std::size_t> send_counts_, receive_counts_;
  std::vector<float> send_, receive_;
};

/// Runs once uncounted, then `repeats` times from a barrier on.
MpiTimes time_collective(const MpiPoint& point, int repeats) {
  Collective collective(point);
  MpiTimes times;
  for (int repeat = -1; repeat < repeats; ++repeat) {
    settle();
    const double start = now();
    collective.run();
    const double seconds = slowest(now() - start);
    if (repeat >= 0) times.seconds.push_back(seconds);
  }
  return times;
}

/// On the first ranks, while others wait.
MpiTimes time_first_ranks(const MpiPoint& point, int repeats) {
  MpiTimes times;
  RankLayer layer(point.layer, own_rank(), rank_count());
  for (int repeat = -1; repeat < kWorkRepeats * repeats; ++repeat) {
    wait_at_barrier();
    double seconds = 0;
    if (own_rank() < point.at_once) {
      seconds = point.kind == MpiKind::experts     ? layer.experts_of(point.rows, point.touched)
                : point.kind == MpiKind::attention ? layer.attend()
                                                   : layer.route() + layer.finish();
    }
    wait_at_barrier();
    seconds = slowest(seconds);
    if (repeat >= 0) times.seconds.push_back(seconds);
  }
  return times;
}

MpiTimes time_layer(const MpiPoint& point, int repeats) {
  MpiTimes times;
  RankLayer layer(point.layer, own_rank(), rank_count());
  std::map<std::string, std::vector<double>> phases;
  for (int repeat = -1; repeat < repeats; ++repeat) {
    settle();
    const double start = now();
    const double attend = layer.attend();
    const double route = layer.route();
    const double dispatch = layer.dispatch();
    const double experts = layer.experts();
    const double combine = layer.combine();
    const double finish = layer.finish();
    const double seconds = slowest(now() - start);
    const std::array<std::pair<const char*, double>, 5> parts{{{"attention", attend},
                                                               {"route", route + finish},
                                                               {"dispatch", dispatch},
                                                               {"experts", experts},
                                                               {"combine", combine}}};
    for (const auto& [name, value] : parts) {
      const double most = slowest(value);
      if (repeat >= 0) phases[name].push_back(most);
    }
    if (repeat >= 0) times.seconds.push_back(seconds);
  }
  const double error = slowest(layer.error());
  if (error > kMostError) {
    throw DeviceError("moe_layer", fmt::format("results differ by {:.1e} from the layer computed on one rank", error));
  }
  for (auto& [name, values] : phases) times.phases[name] = median(values);
  return times;
}

int run(int argc, char** argv) {
  if (argc != 3) throw UsageError("", "moecast-mpi PLAN RESULTS", "moecast profile --device mpi starts it");
  prepare_to_wait();
  const MpiPlan plan = parse_mpi_plan(read_text_file(argv[1]), argv[1]);
  if (plan.ranks != rank_count()) {
    throw InputError(argv[1], fmt::format("is for {} ranks, {} run", plan.ranks, rank_count()));
  }
  MpiResults results;
  results.library = library_name();
  for (const MpiPoint& point : plan.points) {
    switch (point.kind) {
      case MpiKind::moe_layer: results.points.push_back(time_layer(point, plan.repeats)); break;
      case MpiKind::attention:
      case MpiKind::experts:
      case MpiKind::local_work: results.points.push_back(time_first_ranks(point, plan.repeats)); break;
      default: results.points.push_back(time_collective(point, plan.repeats));
    }
    if (own_rank() == 0) fmt::print(stderr, "point {} of {}\n", results.points.size(), plan.points.size());
  }
  if (own_rank() == 0) write_file_atomically(argv[2], mpi_results_text(results));
  return 0;
}

}  // namespace
}  // namespace moecast

int main(int argc, char** argv) {
  // Where mpirun is killed, nobody else would end its ranks.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  MPI_Init(&argc, &argv);
  int code = 0;
  try {
    code = moecast::run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: rank %d: out of memory\n", moecast::own_rank());
    MPI_Abort(MPI_COMM_WORLD, 4);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 4);
  }
  MPI_Finalize();
  return code;
}
