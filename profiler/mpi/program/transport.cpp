#include "profiler/mpi/program/transport.h"

#include <fmt/format.h>
#include <mpi.h>
#include <sched.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>

namespace moecast {
namespace {

constexpr int kTag = 7;
/// MPI counts in int.
constexpr std::size_t kLargestMessage = std::size_t{1} << 28;

using Clock = std::chrono::steady_clock;
/// A message between ranks of a host takes microseconds: whoever waits looks again at once for so long. Longer, and the
/// core would be taken from it where something else wants to run; a rank that sleeps gets it back at once.
constexpr auto kBusy = std::chrono::microseconds(50);
constexpr timespec kShortNap{0, 5'000};
/// Where ranks outnumber cores, somebody else needs the core of whoever waits.
constexpr auto kBusyTogether = std::chrono::microseconds(30);
constexpr timespec kNap{0, 20'000};

/// The same on all ranks of one kernel, and of these alone. Hosts that a testbed made share one.
std::uint64_t kernel_id() {
  std::uint64_t id = 14695981039346656037ULL;  // FNV-1a
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  for (std::string word; file >> word;) {
    for (const char c : word) id = (id ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  }
  return id;
}

/// Whether every rank here has a core of its own. All ranks ask together for the first time.
bool cores_suffice() {
  static const bool suffice = [] {
    const std::uint64_t own = kernel_id();
    std::vector<std::uint64_t> all(static_cast<std::size_t>(rank_count()));
    MPI_Allgather(&own, 1, MPI_UINT64_T, all.data(), 1, MPI_UINT64_T, MPI_COMM_WORLD);
    // Of the machine: mpirun may have bound this rank to one of them.
    return std::ranges::count(all, own) <= sysconf(_SC_NPROCESSORS_ONLN);
  }();
  return suffice;
}

/// @param post  starts one message of at most kLargestMessage floats.
template <typename Post>
void in_pieces(std::size_t count, const Post& post) {
  for (std::size_t done = 0; done < count; done += kLargestMessage) {
    post(done, static_cast<int>(std::min(kLargestMessage, count - done)));
  }
}

void wait_all(std::vector<MPI_Request>& requests) {
  const bool own_core = cores_suffice();
  const auto busy_until = Clock::now() + (own_core ? kBusy : kBusyTogether);
  int done = 0;
  while (true) {
    MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE);
    if (done != 0) break;
    if (Clock::now() >= busy_until) {
      nanosleep(own_core ? &kShortNap : &kNap, nullptr);
    } else if (!own_core) {
      sched_yield();
    }
  }
  requests.clear();
}

void wait_for(MPI_Request request) {
  std::vector<MPI_Request> requests(1, request);
  wait_all(requests);
}

}  // namespace

void prepare_to_wait() {
  // Else a nap of 5 us is one of 55.
  if (cores_suffice()) prctl(PR_SET_TIMERSLACK, 1);
}

std::string library_name() {
  return fmt::format("openmpi-{}.{}.{}", OMPI_MAJOR_VERSION, OMPI_MINOR_VERSION, OMPI_RELEASE_VERSION);
}

double slowest(double own) {
  double all = 0;
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallreduce(&own, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD, &request);
  wait_for(request);
  return all;
}

int own_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

int rank_count() {
  int ranks = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  return ranks;
}

void wait_at_barrier() {
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  wait_for(request);
}

void point_to_point(const float* send, float* receive, std::size_t count) {
  MPI_Request request = MPI_REQUEST_NULL;
  const int last = rank_count() - 1;
  if (own_rank() == 0) MPI_Isend(send, static_cast<int>(count), MPI_FLOAT, last, kTag, MPI_COMM_WORLD, &request);
  if (own_rank() == last) MPI_Irecv(receive, static_cast<int>(count), MPI_FLOAT, 0, kTag, MPI_COMM_WORLD, &request);
  wait_for(request);
}

void all_reduce(const float* send, float* receive, std::size_t count) {
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallreduce(send, receive, static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, &request);
  wait_for(request);
}

void all_gather(const float* send, float* receive, std::size_t part) {
  MPI_Request request = MPI_REQUEST_NULL;
  const int count = static_cast<int>(part);
  MPI_Iallgather(send, count, MPI_FLOAT, receive, count, MPI_FLOAT, MPI_COMM_WORLD, &request);
  wait_for(request);
}

void reduce_scatter(const float* send, float* receive, std::size_t part) {
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Ireduce_scatter_block(send, receive, static_cast<int>(part), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, &request);
  wait_for(request);
}

void exchange(const float* send, const std::vector<std::size_t>& send_counts, float* receive,
              const std::vector<std::size_t>& receive_counts) {
  const int ranks = rank_count();
  const int self = own_rank();
  std::vector<MPI_Request> requests;
  std::vector<std::size_t> send_first(send_counts.size(), 0), receive_first(receive_counts.size(), 0);
  for (std::size_t r = 1; r < send_counts.size(); ++r) {
    send_first[r] = send_first[r - 1] + send_counts[r - 1];
    receive_first[r] = receive_first[r - 1] + receive_counts[r - 1];
  }
  for (int step = 1; step < ranks; ++step) {
    const int from = (self - step + ranks) % ranks;
    const auto at = static_cast<std::size_t>(from);
    in_pieces(receive_counts[at], [&](std::size_t first, int count) {
      requests.emplace_back();
      MPI_Irecv(receive + receive_first[at] + first, count, MPI_FLOAT, from, kTag, MPI_COMM_WORLD, &requests.back());
    });
  }
  for (int step = 1; step < ranks; ++step) {
    const int to = (self + step) % ranks;
    const auto at = static_cast<std::size_t>(to);
    in_pieces(send_counts[at], [&](std::size_t first, int count) {
      requests.emplace_back();
      MPI_Isend(send + send_first[at] + first, count, MPI_FLOAT, to, kTag, MPI_COMM_WORLD, &requests.back());
    });
  }
  const auto own = static_cast<std::size_t>(self);
  std::memcpy(receive + receive_first[own], send + send_first[own], send_counts[own] * sizeof(float));
  wait_all(requests);
}

}  // namespace moecast
