#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace moecast {

/// Ranks and what they exchange, over MPI. Who waits looks for what it waits for without a pause for some tens of
/// microseconds, so that a short message is timed to a microsecond; then it naps, shortly where every rank has a core,
/// longer where those that compute need them. Counts are floats.
///
/// Finds out which of both it is. All ranks call it, before anything else here.
void prepare_to_wait();
int own_rank();
int rank_count();
/// "openmpi-4.1.4"
std::string library_name();
/// Largest of all ranks' numbers.
double slowest(double own);
void wait_at_barrier();

/// Rank 0 to the last rank.
void point_to_point(const float* send, float* receive, std::size_t count);
void all_reduce(const float* send, float* receive, std::size_t count);
/// @param part  of one rank.
void all_gather(const float* send, float* receive, std::size_t part);
void reduce_scatter(const float* send, float* receive, std::size_t part);
/// Everything under way at once, own part copied.
void exchange(const float* send, const std::vector<std::size_t>& send_counts, float* receive,
              const std::vector<std::size_t>& receive_counts);

}  // namespace moecast
