#include "models/routing/traffic.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/core/error.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"
#include "models/routing/reach.h"

namespace moecast {
namespace {

void need_traffic(bool holds, const std::string& what) {
  if (!holds) throw InputError("traffic", what);
}

void check(const Placement& placement, const TrafficOptions& options) {
  need_traffic(options.ranks_per_node >= 1, "a node needs at least one rank");
  need_traffic(std::isfinite(options.dispatch_row_bytes) && options.dispatch_row_bytes > 0,
               "a row has no bytes: dispatch_row_bytes must be above 0");
  need_traffic(placement.ranks() >= 1, "has no ranks");
}

/// Rank of a node that takes in what a rank of another node sends there: the one of the same index.
struct Nodes {
  int ranks, per_node;
  [[nodiscard]] int count() const { return (ranks + per_node - 1) / per_node; }
  [[nodiscard]] int of(int rank) const { return rank / per_node; }
  [[nodiscard]] int forwarder(int sender, int node) const {
    const int first = node * per_node;
    const int size = std::min(per_node, ranks - first);
    return first + sender % per_node % size;
  }
};

void reset(Traffic& out, int ranks, int experts) {
  const auto clear = [&](ByteMatrix& matrix) {
    if (matrix.ranks() != ranks) {
      matrix = ByteMatrix(ranks);
    } else {
      matrix.clear();
    }
  };
  clear(out.inside);
  clear(out.across);
  out.rows_per_expert.assign(static_cast<std::size_t>(experts), 0);
  out.rows_per_rank.assign(static_cast<std::size_t>(ranks), 0);
  out.tokens_per_rank.assign(static_cast<std::size_t>(ranks), 0);
}

/// Which experts each rank, or each node of so many ranks, holds, and how much of their copies.
std::vector<std::vector<GroupMember>> members_of(const Placement& placement, int ranks_per_group) {
  const int groups = (placement.ranks() + ranks_per_group - 1) / ranks_per_group;
  std::vector<std::vector<GroupMember>> members(static_cast<std::size_t>(groups));
  for (int expert = 0; expert < placement.experts(); ++expert) {
    const auto copies = placement.ranks_of(expert);
    for (std::size_t i = 0; i < copies.size();) {
      const std::size_t first = i;
      const int group = copies[i] / ranks_per_group;
      while (i < copies.size() && copies[i] / ranks_per_group == group) ++i;
      const double share = static_cast<double>(i - first) / static_cast<double>(copies.size());
      members[static_cast<std::size_t>(group)].push_back({expert, share});
    }
  }
  return members;
}

}  // namespace

ByteMatrix Traffic::all() const {
  ByteMatrix sum = inside;
  for (int sender = 0; sender < sum.ranks(); ++sender) {
    for (int receiver = 0; receiver < sum.ranks(); ++receiver) {
      sum.at(sender, receiver) += across.at(sender, receiver);
    }
  }
  return sum;
}

TrafficCounter::TrafficCounter(Placement placement, TrafficOptions options)
    : placement_(std::move(placement)),
      options_(options),
      turn_(static_cast<std::size_t>(placement_.experts()), 0),
      seen_rank_(static_cast<std::size_t>(placement_.ranks()), 0),
      seen_node_(static_cast<std::size_t>(placement_.ranks()), 0) {
  check(placement_, options_);
  for (int expert = 0; expert < placement_.experts(); ++expert) {
    if (placement_.ranks_of(expert).size() > 1) copied_.push_back(expert);
  }
  if (!copied_.empty()) return;
  for (int expert = 0; expert < placement_.experts(); ++expert) {
    only_rank_.push_back(placement_.ranks_of(expert).front());
  }
}

void TrafficCounter::start_turns(Random& random) {
  for (const std::int32_t expert : copied_) {
    const auto copies = static_cast<std::uint32_t>(placement_.ranks_of(expert).size());
    turn_[static_cast<std::size_t>(expert)] = random.below(copies);
  }
}

/// The usual case, without turns of copies: all senders of a rank in one go.
void TrafficCounter::count_single_copies(const Assignment& assignment, Traffic& out) {
  const int ranks = placement_.ranks();
  const Nodes nodes{ranks, options_.ranks_per_node};
  const double row = options_.dispatch_row_bytes;
  const auto tokens = static_cast<std::int64_t>(assignment.tokens());
  const bool every_expert = options_.deduplication == Deduplication::per_expert;
  for (int sender = 0; sender < ranks; ++sender) {
    // Token t starts on rank t * ranks / tokens.
    const std::int64_t begin = (sender * tokens + ranks - 1) / ranks;
    const std::int64_t end = ((sender + 1) * tokens + ranks - 1) / ranks;
    std::fill(sent_.begin(), sent_.end(), 0U);
    if (every_expert) {
      const std::size_t first = assignment.first[static_cast<std::size_t>(begin)];
      const std::size_t last = assignment.first[static_cast<std::size_t>(end)];
      for (std::size_t i = first; i < last; ++i) {
        const auto expert = static_cast<std::size_t>(assignment.expert[i]);
        ++expert_rows_[expert];
        ++sent_[static_cast<std::size_t>(only_rank_[expert])];
      }
    } else {
      for (std::int64_t token = begin; token < end; ++token) {
        const std::uint32_t stamp = ++stamp_;
        for (const std::int32_t expert : assignment.of(static_cast<std::size_t>(token))) {
          ++expert_rows_[static_cast<std::size_t>(expert)];
          const auto r = static_cast<std::size_t>(only_rank_[static_cast<std::size_t>(expert)]);
          sent_[r] += static_cast<std::uint32_t>(seen_rank_[r] != stamp);
          seen_rank_[r] = stamp;
        }
      }
    }
    const int home = nodes.of(sender);
    for (int receiver = 0; receiver < ranks; ++receiver) {
      const double rows = sent_[static_cast<std::size_t>(receiver)];
      if (rows == 0) continue;
      out.tokens_per_rank[static_cast<std::size_t>(receiver)] += rows;
      (nodes.of(receiver) == home ? out.inside : out.across).at(sender, receiver) += rows * row;
    }
  }
  for (std::size_t expert = 0; expert < expert_rows_.size(); ++expert) {
    out.rows_per_expert[expert] = expert_rows_[expert];
    out.rows_per_rank[static_cast<std::size_t>(only_rank_[expert])] += expert_rows_[expert];
  }
}

void TrafficCounter::count(const Assignment& assignment, Traffic& out) {
  const int ranks = placement_.ranks();
  need_traffic(assignment.experts == placement_.experts(),
               fmt::format("{} experts are assigned, {} are placed", assignment.experts, placement_.experts()));
  const Nodes nodes{ranks, options_.ranks_per_node};
  reset(out, ranks, assignment.experts);
  if (!only_rank_.empty() && options_.deduplication != Deduplication::per_node) {
    sent_.resize(static_cast<std::size_t>(ranks));
    expert_rows_.assign(static_cast<std::size_t>(assignment.experts), 0);
    return count_single_copies(assignment, out);
  }
  const double row = options_.dispatch_row_bytes;
  const auto tokens = static_cast<std::int64_t>(assignment.tokens());
  for (std::int64_t token = 0; token < tokens; ++token) {
    const int sender = static_cast<int>(token * ranks / tokens);
    const int home = nodes.of(sender);
    ++stamp_;
    for (const std::int32_t expert : assignment.of(static_cast<std::size_t>(token))) {
      const auto copies = placement_.ranks_of(expert);
      std::uint32_t& turn = turn_[static_cast<std::size_t>(expert)];
      int receiver = copies[turn];
      if (options_.own_copy_first && std::ranges::find(copies, sender) != copies.end()) {
        receiver = sender;
      } else {
        turn = turn + 1 == copies.size() ? 0 : turn + 1;
      }
      const auto r = static_cast<std::size_t>(receiver);
      out.rows_per_expert[static_cast<std::size_t>(expert)] += 1;
      out.rows_per_rank[r] += 1;
      const bool fresh = seen_rank_[r] != stamp_;
      seen_rank_[r] = stamp_;
      if (!fresh && options_.deduplication != Deduplication::per_expert) continue;
      out.tokens_per_rank[r] += 1;
      const int node = nodes.of(receiver);
      if (node == home) {
        out.inside.at(sender, receiver) += row;
      } else if (options_.deduplication != Deduplication::per_node) {
        out.across.at(sender, receiver) += row;
      } else {
        const int forwarder = nodes.forwarder(sender, node);
        if (seen_node_[static_cast<std::size_t>(node)] != stamp_) out.across.at(sender, forwarder) += row;
        seen_node_[static_cast<std::size_t>(node)] = stamp_;
        out.inside.at(forwarder, receiver) += row;
      }
    }
  }
}

Traffic expected_traffic(std::span<const double> popularity, int top_k, std::span<const double> tokens_per_rank,
                         const Placement& placement, const TrafficOptions& options) {
  check(placement, options);
  const int ranks = placement.ranks();
  need_traffic(std::ssize(popularity) == placement.experts(),
               fmt::format("{} experts have a popularity, {} are placed", popularity.size(), placement.experts()));
  need_traffic(std::ssize(tokens_per_rank) == ranks,
               fmt::format("tokens of {} ranks, not {}", tokens_per_rank.size(), ranks));
  double tokens = 0;
  for (const double own : tokens_per_rank) {
    need_traffic(std::isfinite(own) && own >= 0, "tokens of a rank must be finite and not negative");
    tokens += own;
  }
  const std::vector<double> inclusion =
      inclusion_probability({popularity.begin(), popularity.end()}, top_k, Inclusion::exact);
  const Nodes nodes{ranks, options.ranks_per_node};
  Traffic out;
  reset(out, ranks, placement.experts());
  std::vector<double> rank_reach(static_cast<std::size_t>(ranks), 0);
  for (int expert = 0; expert < placement.experts(); ++expert) {
    const auto copies = placement.ranks_of(expert);
    const double all = inclusion[static_cast<std::size_t>(expert)];
    out.rows_per_expert[static_cast<std::size_t>(expert)] = tokens * all;
    for (const std::int32_t rank : copies) {
      const double each = all / static_cast<double>(copies.size());
      out.rows_per_rank[static_cast<std::size_t>(rank)] += tokens * each;
      rank_reach[static_cast<std::size_t>(rank)] += each;  // copies of a token, one a selected expert
    }
  }
  std::vector<double> node_reach;
  if (options.deduplication != Deduplication::per_expert) {
    rank_reach = reach_probabilities(popularity, members_of(placement, 1), top_k);
  }
  if (options.deduplication == Deduplication::per_node) {
    node_reach = reach_probabilities(popularity, members_of(placement, options.ranks_per_node), top_k);
  }
  for (std::size_t r = 0; r < rank_reach.size(); ++r) out.tokens_per_rank[r] = tokens * rank_reach[r];
  for (int sender = 0; sender < ranks; ++sender) {
    const double bytes = tokens_per_rank[static_cast<std::size_t>(sender)] * options.dispatch_row_bytes;
    if (bytes == 0) continue;
    for (int receiver = 0; receiver < ranks; ++receiver) {
      const int node = nodes.of(receiver);
      const double copy = bytes * rank_reach[static_cast<std::size_t>(receiver)];
      if (node == nodes.of(sender)) {
        out.inside.at(sender, receiver) += copy;
      } else if (options.deduplication == Deduplication::per_node) {
        out.inside.at(nodes.forwarder(sender, node), receiver) += copy;
      } else {
        out.across.at(sender, receiver) += copy;
      }
    }
    if (options.deduplication != Deduplication::per_node) continue;
    for (int node = 0; node < nodes.count(); ++node) {
      if (node == nodes.of(sender)) continue;
      out.across.at(sender, nodes.forwarder(sender, node)) += bytes * node_reach[static_cast<std::size_t>(node)];
    }
  }
  return out;
}

}  // namespace moecast
