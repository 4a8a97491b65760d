#include "sim/event/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "models/core/error.h"

namespace moecast {
namespace {

constexpr std::array<std::string_view, 7> kNames{"direct",     "pairwise",   "ring",         "hierarchical",
                                                 "all-gather", "all-reduce", "gather-reduce"};

std::size_t index(int at) { return static_cast<std::size_t>(at); }

void add(ExchangeRounds& rounds, ExchangeRound round) {
  if (!round.empty()) rounds.push_back(std::move(round));
}

ExchangeRound pairs_at_distance(const ByteMatrix& bytes, int distance) {
  ExchangeRound round;
  for (int from = 0; from < bytes.ranks(); ++from) {
    const int to = (from + distance) % bytes.ranks();
    if (bytes.at(from, to) > 0) round.push_back({from, to, bytes.at(from, to)});
  }
  return round;
}

ExchangeRounds ring_rounds(const ByteMatrix& bytes) {
  const int ranks = bytes.ranks();
  // Bytes of each rank for those at least so far ahead: what is still under way in the round of that number.
  std::vector<std::vector<double>> left(index(ranks), std::vector<double>(index(ranks) + 1, 0.0));
  for (int owner = 0; owner < ranks; ++owner) {
    for (int distance = ranks - 1; distance > 0; --distance) {
      left[index(owner)][index(distance)] =
          left[index(owner)][index(distance) + 1] + bytes.at(owner, (owner + distance) % ranks);
    }
  }
  ExchangeRounds rounds;
  for (int number = 1; number < ranks; ++number) {
    ExchangeRound round;
    for (int from = 0; from < ranks; ++from) {
      const double amount = left[index((from - number + 1 + ranks) % ranks)][index(number)];
      if (amount > 0) round.push_back({from, (from + 1) % ranks, amount});
    }
    add(rounds, std::move(round));
  }
  return rounds;
}

/// The most that each rank has for anyone.
std::vector<double> blocks_of(const ByteMatrix& bytes) {
  std::vector<double> blocks(index(bytes.ranks()), 0);
  for (int from = 0; from < bytes.ranks(); ++from) {
    for (int to = 0; to < bytes.ranks(); ++to) {
      if (from != to) blocks[index(from)] = std::max(blocks[index(from)], bytes.at(from, to));
    }
  }
  return blocks;
}

/// Rows of each replica, which all of its tensor-parallel ranks have: what these would each have for others.
std::vector<double> replica_blocks(const ByteMatrix& bytes, int tensor_ranks) {
  if (tensor_ranks < 1 || bytes.ranks() % tensor_ranks != 0) {
    throw InputError("exchange", fmt::format("{} ranks are no replicas of {}", bytes.ranks(), tensor_ranks));
  }
  std::vector<double> replicas(index(bytes.ranks() / tensor_ranks), 0);
  const std::vector<double> blocks = blocks_of(bytes);
  for (int rank = 0; rank < bytes.ranks(); ++rank) replicas[index(rank / tensor_ranks)] += blocks[index(rank)];
  return replicas;
}

/// Around the ring of the ranks of one index, one in each replica; all rings at once.
ExchangeRounds replica_gather_rounds(std::span<const double> blocks, int tensor_ranks) {
  const int replicas = static_cast<int>(blocks.size());
  ExchangeRounds rounds;
  for (int number = 0; number < replicas - 1; ++number) {
    ExchangeRound round;
    for (int from = 0; from < replicas; ++from) {
      const double amount = blocks[index((from - number + replicas) % replicas)];
      for (int rank = 0; rank < tensor_ranks && amount > 0; ++rank) {
        round.push_back({from * tensor_ranks + rank, (from + 1) % replicas * tensor_ranks + rank, amount});
      }
    }
    add(rounds, std::move(round));
  }
  return rounds;
}

ExchangeRound pairs_if(const ByteMatrix& bytes, int ranks_per_node, bool same_node) {
  ExchangeRound round;
  for (int from = 0; from < bytes.ranks(); ++from) {
    for (int to = 0; to < bytes.ranks(); ++to) {
      const bool same = from / ranks_per_node == to / ranks_per_node;
      if (from != to && same == same_node && bytes.at(from, to) > 0) round.push_back({from, to, bytes.at(from, to)});
    }
  }
  return round;
}

void check_node(int ranks_per_node) {
  if (ranks_per_node < 1) throw InputError("exchange", fmt::format("{} ranks a node", ranks_per_node), "at least 1");
}

void check_block(double bytes) {
  if (!std::isfinite(bytes) || bytes < 0) {
    throw InputError("exchange", fmt::format("a block of {} bytes", bytes), "finite and not negative");
  }
}

}  // namespace

std::string_view to_string(ExchangeAlgorithm algorithm) { return kNames[static_cast<std::size_t>(algorithm)]; }

std::optional<ExchangeAlgorithm> find_exchange_algorithm(std::string_view name) {
  const auto found = std::ranges::find(kNames, name);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<ExchangeAlgorithm>(found - kNames.begin());
}

std::optional<FlowModel> find_flow_model(std::string_view name) {
  if (name == "port") return FlowModel::port;
  if (name == "exact") return FlowModel::exact;
  return std::nullopt;
}

ByteMatrix through_nodes(const ByteMatrix& bytes, int ranks_per_node) {
  check_node(ranks_per_node);
  const int ranks = bytes.ranks();
  ByteMatrix out(ranks);
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      const double amount = bytes.at(from, to);
      if (amount == 0) continue;
      const int first = to / ranks_per_node * ranks_per_node;
      if (from / ranks_per_node == to / ranks_per_node) {
        out.at(from, to) += amount;
        continue;
      }
      const int size = std::min(ranks_per_node, ranks - first);
      const int forwarder = first + from % ranks_per_node % size;
      out.at(from, forwarder) += amount;
      if (forwarder != to) out.at(forwarder, to) += amount;
    }
  }
  return out;
}

ExchangeRounds all_to_all_rounds(ExchangeAlgorithm algorithm, const ByteMatrix& bytes, int ranks_per_node,
                                 int tensor_ranks) {
  check_node(ranks_per_node);
  const int ranks = bytes.ranks();
  ExchangeRounds rounds;
  switch (algorithm) {
    case ExchangeAlgorithm::direct: {
      ExchangeRound all;
      for (int distance = 1; distance < ranks; ++distance) {
        const ExchangeRound some = pairs_at_distance(bytes, distance);
        all.insert(all.end(), some.begin(), some.end());
      }
      add(rounds, std::move(all));
      break;
    }
    case ExchangeAlgorithm::pairwise:
      for (int distance = 1; distance < ranks; ++distance) add(rounds, pairs_at_distance(bytes, distance));
      break;
    case ExchangeAlgorithm::ring: return ring_rounds(bytes);
    case ExchangeAlgorithm::hierarchical: {
      const ByteMatrix forwarded = through_nodes(bytes, ranks_per_node);
      add(rounds, pairs_if(forwarded, ranks_per_node, false));
      add(rounds, pairs_if(forwarded, ranks_per_node, true));
      break;
    }
    case ExchangeAlgorithm::all_gather:
    case ExchangeAlgorithm::all_reduce: {
      const std::vector<double> blocks = blocks_of(bytes);
      if (algorithm == ExchangeAlgorithm::all_reduce) rounds = reduce_scatter_rounds(blocks);
      for (ExchangeRound& round : all_gather_rounds(blocks)) rounds.push_back(std::move(round));
      return rounds;
    }
    case ExchangeAlgorithm::gather_reduce:
      return replica_gather_rounds(replica_blocks(bytes, tensor_ranks), tensor_ranks);
  }
  return rounds;
}

ExchangeRounds reversed(ExchangeRounds rounds) {
  std::ranges::reverse(rounds);
  for (ExchangeRound& round : rounds) {
    for (Transfer& transfer : round) std::swap(transfer.from, transfer.to);
  }
  return rounds;
}

ExchangeRounds way_back_rounds(ExchangeAlgorithm algorithm, const ByteMatrix& bytes, int ranks_per_node,
                               int tensor_ranks) {
  ExchangeRounds rounds = reversed(all_to_all_rounds(algorithm, bytes, ranks_per_node, tensor_ranks));
  if (algorithm != ExchangeAlgorithm::gather_reduce || tensor_ranks == 1) return rounds;
  const std::vector<double> blocks = replica_blocks(bytes, tensor_ranks);
  for (int number = 0; number < 2 * (tensor_ranks - 1); ++number) {
    ExchangeRound round;
    for (int rank = 0; rank < bytes.ranks(); ++rank) {
      const int first = rank / tensor_ranks * tensor_ranks;
      const double amount = blocks[index(rank / tensor_ranks)] / tensor_ranks;
      if (amount > 0) round.push_back({rank, first + (rank - first + 1) % tensor_ranks, amount});
    }
    add(rounds, std::move(round));
  }
  return rounds;
}

ExchangeRounds all_gather_rounds(std::span<const double> block_bytes) {
  if (block_bytes.empty()) throw InputError("exchange", "has no ranks");
  std::ranges::for_each(block_bytes, check_block);
  const int ranks = static_cast<int>(block_bytes.size());
  ExchangeRounds rounds;
  for (int number = 0; number < ranks - 1; ++number) {
    ExchangeRound round;
    for (int from = 0; from < ranks; ++from) {
      const double amount = block_bytes[index((from - number + ranks) % ranks)];
      if (amount > 0) round.push_back({from, (from + 1) % ranks, amount});
    }
    add(rounds, std::move(round));
  }
  return rounds;
}

ExchangeRounds reduce_scatter_rounds(std::span<const double> block_bytes) {
  return reversed(all_gather_rounds(block_bytes));
}

ExchangeRounds all_reduce_rounds(int ranks, double bytes) {
  if (ranks < 1) throw InputError("exchange", fmt::format("has {} ranks", ranks), "at least 1");
  const std::vector<double> blocks(index(ranks), bytes / ranks);
  ExchangeRounds rounds = reduce_scatter_rounds(blocks);
  for (ExchangeRound& round : all_gather_rounds(blocks)) rounds.push_back(std::move(round));
  return rounds;
}

ExchangeRounds parameter_server_rounds(int ranks, int server, double bytes) {
  check_block(bytes);
  if (ranks < 2 || server < 0 || server >= ranks) {
    throw InputError("exchange", fmt::format("rank {} of {} cannot serve the others", server, ranks),
                     "a rank from 0, and at least one worker");
  }
  ExchangeRound push;
  for (int worker = 0; worker < ranks && bytes > 0; ++worker) {
    if (worker != server) push.push_back({worker, server, bytes});
  }
  ExchangeRounds rounds;
  add(rounds, push);
  for (ExchangeRound& pull : reversed(rounds)) rounds.push_back(std::move(pull));
  return rounds;
}

std::vector<double> round_starts(const ExchangeRounds& rounds, int ranks_per_node, double inside_s, double across_s) {
  check_node(ranks_per_node);
  std::vector<double> starts;
  for (const ExchangeRound& round : rounds) {
    const bool across = std::ranges::any_of(
        round, [&](const Transfer& one) { return one.from / ranks_per_node != one.to / ranks_per_node; });
    starts.push_back(across ? across_s : inside_s);
  }
  return starts;
}

RoundsCost cost_of_rounds(NetworkPorts& ports, const ExchangeRounds& rounds, int ranks_per_node, double round_s) {
  return cost_of_rounds(ports, rounds, ranks_per_node, std::vector<double>(rounds.size(), round_s));
}

RoundsCost cost_of_rounds(NetworkPorts& ports, const ExchangeRounds& rounds, int ranks_per_node,
                          std::span<const double> starts_s) {
  check_node(ranks_per_node);
  RoundsCost cost;
  std::vector<double> carried;
  for (std::size_t i = 0; i < rounds.size(); ++i) {
    for (const Demand& demand : ports.demands(rounds[i])) {
      const auto link = static_cast<std::size_t>(demand.resources.front() - ports.resource(0));
      carried.resize(std::max(carried.size(), link + 1), 0);
      carried[link] += demand.amount;
    }
    cost.fullest_s += ports.fullest_s();
    cost.healthy_s += ports.healthy_s();
    cost.seconds += starts_s[i] + ports.fullest_s();
    for (const Transfer& transfer : rounds[i]) {
      if (transfer.from / ranks_per_node != transfer.to / ranks_per_node) cost.between_nodes += transfer.bytes;
    }
  }
  double longest = 0;
  for (std::size_t link = 0; link < carried.size(); ++link) {
    const double seconds = ports.link_s(static_cast<int>(link), carried[link]);
    if (seconds <= longest) continue;
    longest = seconds;
    cost.busiest_bytes = carried[link];
    cost.busiest_link = static_cast<int>(link);
  }
  return cost;
}

int add_rounds(EventGraph& graph, NetworkPorts& ports, const ExchangeRounds& rounds, TaskKind kind, int stream,
               double start_s, double round_s, double scale, FlowModel model, std::span<const int> after) {
  std::vector<double> starts(rounds.size(), round_s);
  if (!starts.empty()) starts.front() += start_s;
  return add_rounds(graph, ports, rounds, kind, stream, starts, scale, model, after);
}

int add_rounds(EventGraph& graph, NetworkPorts& ports, const ExchangeRounds& rounds, TaskKind kind, int stream,
               std::span<const double> starts_s, double scale, FlowModel model, std::span<const int> after) {
  int last = -1;
  for (std::size_t i = 0; i < rounds.size(); ++i) {
    std::span<const Demand> demands;
    if (model == FlowModel::port) {
      demands = ports.demands(rounds[i]);
      ports.rescale(scale);
    } else {
      demands = ports.flows(rounds[i], scale);
    }
    last = graph.add_task(kind, -1, stream, starts_s[i], demands, i == 0 ? after : std::span<const int>(&last, 1));
  }
  return last;
}

}  // namespace moecast
