#include "profiler/mpi/program/transport.h"

#include <fmt/format.h>
#include <mpi.h>
#include <time.h>

#include <algorithm>
#include <cstring>

namespace moecast {
namespace {

constexpr int kTag = 7;
/// MPI counts in int.
constexpr std::size_t kLargestMessage = std::size_t{1} << 28;

void nap() {
  const timespec pause{0, 20'000};
  nanosleep(&pause, nullptr);
}

/// @param post  starts one message of at most kLargestMessage floats.
template <typename Post>
void in_pieces(std::size_t count, const Post& post) {
  for (std::size_t done = 0; done < count; done += kLargestMessage) {
    post(done, static_cast<int>(std::min(kLargestMessage, count - done)));
  }
}

void wait_all(std::vector<MPI_Request>& requests) {
  int done = 0;
  while (true) {
    MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE);
    if (done != 0) break;
    nap();
  }
  requests.clear();
}

void wait_for(MPI_Request request) {
  std::vector<MPI_Request> requests(1, request);
  wait_all(requests);
}

}  // namespace

std::string library_name() {
  return fmt::format("openmpi-{}.{}.{}", OMPI_MAJOR_VERSION, OMPI_MINOR_VERSION, OMPI_RELEASE_VERSION);
}

double slowest(double own) {
  double all = 0;
  MPI_Allreduce(&own, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
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
