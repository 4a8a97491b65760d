#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hwprofiles/cluster.h"
#include "models/routing/byte_matrix.h"
#include "sim/event/event_graph.h"

namespace moecast {

/// Bytes that were exchanged at once between ranks, and how long that took.
struct ExchangeProbe {
  ByteMatrix bytes{1};
  double seconds = 0;
};

enum class HostWork { experts, local, attention };  ///< local: gate, permute and unpermute

/// What some ranks computed side by side, by what its time may depend on.
struct WorkProbe {
  HostWork kind = HostWork::experts;
  double calls = 0;         ///< experts with rows; 1 of other work
  double flops = 0;         ///< floating-point operations of a rank
  double weight_bytes = 0;  ///< read by a rank
  double row_bytes = 0;     ///< copied by a rank; of attention, its scores
  int at_once = 1;          ///< ranks
  double seconds = 0;       ///< of the slowest rank
};

/// Seconds of one rank's work when no other computes: a sum of what each piece costs.
struct WorkLaw {
  double call_s = 0;
  double flop_s = 0;         ///< of a floating-point operation
  double weight_byte_s = 0;  ///< of a byte of weights
  double row_byte_s = 0;     ///< of a byte of rows that is copied
  [[nodiscard]] double seconds(const WorkProbe& work) const;
};

/// How processes on hosts compute and exchange: fitted to probes, or given.
///
/// exchange = start_s + message_s * peers + bytes beyond a port's burst through links, each at its efficiency. Ranks
/// share `cores`: each at most one, so many ranks' worth of work at once in all.
struct HostRanks {
  double start_s = 0;          ///< of an exchange
  double message_s = 0;        ///< of each peer that a rank sends to or receives from
  double burst_bytes = 0;      ///< that pass a rested port ahead of its rate: a shaper's token bucket, a NIC's queue
  double port_efficiency = 1;  ///< share of a host port's bandwidth that payload reaches
  double leaf_efficiency = 1;  ///< the same of links above leaves
  WorkLaw experts;
  WorkLaw local;      ///< gate, permute and unpermute
  WorkLaw attention;  ///< zero where nothing was probed
  double cores = 1;   ///< ranks' worth of work that the ranks' CPUs do side by side
  /// Spread of ln(measured / predicted) to be expected: from the probes, and from what such laws err elsewhere.
  double exchange_sigma = 0;
  double work_sigma = 0;

  [[nodiscard]] double work_s(const WorkProbe& work) const {
    return (work.kind == HostWork::experts ? experts : work.kind == HostWork::local ? local : attention).seconds(work);
  }
};

/// @param exchanges, work  at least three of each kind, of attention three or none. Probes with `at_once` above 1 say
/// the cores.
/// @throws InputError with fewer, or when times are not above zero.
HostRanks fit_host_ranks(const Cluster& cluster, int ranks, std::span<const ExchangeProbe> exchanges,
                         std::span<const WorkProbe> work);

/// One MoE layer over ranks.
struct HostLayer {
  std::optional<ByteMatrix> counts{};  ///< that ranks tell each other before rows travel; nullopt: all know them
  ByteMatrix dispatch{1};              ///< combine is the way back
  std::vector<double> local_s;         ///< of each rank, alone: attention, gate, permute and unpermute
  std::vector<double> experts_s;       ///< of each rank, alone
};

/// Ranks of a cluster as tasks: every pair's bytes flow by the shortest route, max-min fair.
class HostRankEvents {
 public:
  HostRankEvents(const HostRanks& law, const Cluster& cluster, int ranks);
  /// Everything under way at once. @return seconds until the last byte.
  double exchange_s(const ByteMatrix& bytes);
  /// Each rank goes on when its own bytes are there. @return seconds until the last rank has its sums.
  double layer_s(const HostLayer& layer);

 private:
  /// Adds a task a pair; fills in what each rank waits for.
  void add_exchange(TaskKind kind, const ByteMatrix& bytes, const std::vector<int>& ready,
                    std::vector<std::vector<int>>& done);
  int add_work(int rank, double seconds, std::span<const int> after);

  HostRanks law_;
  Topology topology_;
  EventGraph graph_;
  int first_link_ = 0;
  int cores_ = 0;
};

}  // namespace moecast
