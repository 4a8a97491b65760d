#pragma once
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "models/routing/byte_matrix.h"
#include "sim/event/event_graph.h"

namespace moecast {

/// How bytes of all ranks reach their receivers.
///
/// direct: every pair at once. pairwise: R - 1 rounds, in round r rank i sends to rank i + r and receives from i - r.
/// ring: R - 1 rounds, every rank sends to the next one only and passes on what is for others. hierarchical: between
/// nodes first, to the rank of the sender's index there, then inside nodes. all_gather: every rank's block goes to all
/// others around the ring, whoever wants it; the way back is a reduce-scatter of equal sums.
/// all_reduce: every rank has all rows and sums what the experts of all made of them; nothing is dispatched.
/// gather_reduce: replicas of attention, each of several tensor-parallel ranks that have its rows: every rank gathers
/// those of the other replicas; the way back is a reduce-scatter over replicas, then an all-reduce inside each.
enum class ExchangeAlgorithm { direct, pairwise, ring, hierarchical, all_gather, all_reduce, gather_reduce };
/// Every rank computes its experts' share of the rows of all.
constexpr bool sees_all_rows(ExchangeAlgorithm algorithm) {
  return algorithm == ExchangeAlgorithm::all_gather || algorithm == ExchangeAlgorithm::all_reduce ||
         algorithm == ExchangeAlgorithm::gather_reduce;
}
std::string_view to_string(ExchangeAlgorithm algorithm);
std::optional<ExchangeAlgorithm> find_exchange_algorithm(std::string_view name);

/// Transfers that start together. The next round starts when all of them have ended.
using ExchangeRound = std::vector<Transfer>;
using ExchangeRounds = std::vector<ExchangeRound>;

/// Bytes of an all-to-all when copies for another node go through the rank of the sender's index there: what crosses
/// nodes lies on such pairs only. What crosses nodes in all does not change.
/// @param ranks_per_node  at least 1; the last node may be smaller. @throws InputError otherwise.
ByteMatrix through_nodes(const ByteMatrix& bytes, int ranks_per_node);

/// Rounds without any bytes are left out. all_gather, gather_reduce: the block of a rank is the most that it has for
/// anyone.
/// @param tensor_ranks  neighbours that are one replica, of gather_reduce.
/// @throws InputError unless ranks_per_node is at least 1 and tensor_ranks divides the ranks.
ExchangeRounds all_to_all_rounds(ExchangeAlgorithm algorithm, const ByteMatrix& bytes, int ranks_per_node,
                                 int tensor_ranks = 1);
/// Every transfer turned round, the last round first. Of an all-gather it is the reduce-scatter.
ExchangeRounds reversed(ExchangeRounds rounds);
/// The way back of all_to_all_rounds: reversed, and what gather_reduce does inside replicas.
ExchangeRounds way_back_rounds(ExchangeAlgorithm algorithm, const ByteMatrix& bytes, int ranks_per_node,
                               int tensor_ranks = 1);

/// Around the ring. @param block_bytes  of each rank. @throws InputError on none, a negative or an infinite one.
ExchangeRounds all_gather_rounds(std::span<const double> block_bytes);
/// Around the ring: the sums of block r end on rank r.
ExchangeRounds reduce_scatter_rounds(std::span<const double> block_bytes);
/// Around the ring: reduce-scatter, then all-gather. @param bytes  of the whole buffer of a rank.
ExchangeRounds all_reduce_rounds(int ranks, double bytes);
/// All workers (every rank but `server`) send `bytes` to the server at once, and get as many back.
/// @throws InputError unless 0 <= server < ranks and ranks >= 2.
ExchangeRounds parameter_server_rounds(int ranks, int server, double bytes);

/// What the links make of rounds when nothing else runs.
struct RoundsCost {
  double seconds = 0;        ///< starts of rounds, and the fullest link of each
  double fullest_s = 0;      ///< fullest links alone
  double healthy_s = 0;      ///< the same where no link is degraded
  double between_nodes = 0;  ///< bytes that leave a node, summed over rounds
  double busiest_bytes = 0;  ///< of the link that takes longest over what it carries, all rounds together
  int busiest_link = -1;     ///< -1: nothing moves
};
/// Closed form: each round takes its start and the fullest of its links.
/// @param ranks_per_node  for `between_nodes`. @param round_s  seconds before bytes flow, of every round.
RoundsCost cost_of_rounds(NetworkPorts& ports, const ExchangeRounds& rounds, int ranks_per_node, double round_s);
/// @param starts_s  seconds before bytes flow, of each round.
RoundsCost cost_of_rounds(NetworkPorts& ports, const ExchangeRounds& rounds, int ranks_per_node,
                          std::span<const double> starts_s);

/// What each round waits for before its bytes flow: `across_s` where some of them leave a node, else `inside_s`.
std::vector<double> round_starts(const ExchangeRounds& rounds, int ranks_per_node, double inside_s, double across_s);

/// Port model: every link carries the sum of a round. exact: every transfer takes its share of all links of its route.
enum class FlowModel { port, exact };
std::optional<FlowModel> find_flow_model(std::string_view name);
/// Of the exact model: more pairs take long.
inline constexpr int kMostExactRanks = 32;

/// Appends the rounds as a chain of tasks, one a round.
/// @param scale  factor on bytes. @param after  what the first round waits for.
/// @return the last task; -1 when there is no round.
int add_rounds(EventGraph& graph, NetworkPorts& ports, const ExchangeRounds& rounds, TaskKind kind, int stream,
               double start_s, double round_s, double scale, FlowModel model, std::span<const int> after);
/// @param starts_s  seconds before bytes flow, of each round.
int add_rounds(EventGraph& graph, NetworkPorts& ports, const ExchangeRounds& rounds, TaskKind kind, int stream,
               std::span<const double> starts_s, double scale, FlowModel model, std::span<const int> after);

}  // namespace moecast
