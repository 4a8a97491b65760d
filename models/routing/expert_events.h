#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/routing/placement.h"

namespace moecast {

/// Something that happens, between two steps, to the experts of every MoE layer.
struct ExpertEvent {
  enum class Kind { add, remove, rebalance };
  std::int64_t step = 0;  ///< before this one
  Kind kind = Kind::add;
  std::optional<int> expert;   ///< remove: which; nullopt: the one with the fewest rows
  double popularity = 1;       ///< add: weight in the router's choice, over the mean of those that are there
  std::optional<int> copy_of;  ///< add: its weights are a copy of that expert's; nullopt: they come from the host
};

std::string_view to_string(ExpertEvent::Kind kind);

/// What becomes of the tokens that would have chosen a removed expert: they choose another one, or do without.
enum class PrunedRows { rerouted, dropped };

struct ExpertEvents {
  std::optional<int> most;  ///< experts of a layer; nullopt: no limit
  PrunedRows pruned = PrunedRows::rerouted;
  std::vector<ExpertEvent> events;  ///< steps ascend
};

/// {"moecast_expert_events": 1, "max_experts": 64, "pruned_rows": "rerouted" or "dropped", "events": [
///   {"step": 100, "add": {"popularity": 1.0, "copy_of": 3}}, {"step": 200, "remove": 64},
///   {"step": 300, "remove": "least_loaded"}, {"step": 400, "rebalance": true}]}
/// @throws InputError naming the pointer: not that format, steps that descend, an event that is none.
ExpertEvents parse_expert_events(std::string_view text, const std::string& where);

/// Weights of one expert that go to a rank.
struct ExpertMove {
  int expert = 0;
  std::optional<int> from;  ///< rank; nullopt: the host's memory
  int to = 0;
};

struct ExpertChange {
  std::optional<int> expert;  ///< added or removed
  std::vector<ExpertMove> moves;
  bool places_changed = false;  ///< what captured graphs hold has another shape
};

/// Experts of a layer and where they are, as they come and go. Every rank has as many places as the fullest one uses.
///
/// An added expert goes to the rank with the fewest experts, of these to the one with the fewest rows. A removed one
/// leaves its place, others stay where they are. On `rebalance` they move: the most used first, each to the rank with
/// the fewest rows that has a place, as many places on every rank as are needed.
class ExpertSet {
 public:
  /// Experts 0 ... E-1, contiguous. @param popularity  weights, one above 0 at least.
  /// @throws InputError unless ranks divides the experts.
  ExpertSet(std::vector<double> popularity, int ranks, int top_k, std::optional<int> most = std::nullopt,
            PrunedRows pruned = PrunedRows::rerouted);

  /// @throws InputError on an unknown expert, more experts than `most`, or fewer than a token chooses.
  ExpertChange apply(const ExpertEvent& event);

  [[nodiscard]] int experts() const;
  [[nodiscard]] int ranks() const { return ranks_; }
  /// Of a rank.
  [[nodiscard]] int places() const;
  /// Rows of each rank for so many tokens of all ranks, expected.
  [[nodiscard]] std::vector<double> rows_per_rank(double tokens) const;
  /// Weights rank by rank, each rank's empty places last, with weight 0.
  [[nodiscard]] std::vector<double> popularity_of_places() const;

 private:
  struct Expert {
    int id = 0;
    double weight = 0;
    int rank = 0;
    bool alive = true;
  };
  [[nodiscard]] std::vector<double> inclusion() const;  ///< of every entry of `all_`, 0 where it is not alive
  [[nodiscard]] std::vector<int> counts() const;
  Expert& find(int id);
  void add(const ExpertEvent& event, ExpertChange& change);
  void remove(const ExpertEvent& event, ExpertChange& change);
  void rebalance(ExpertChange& change);

  std::vector<Expert> all_;  ///< removed ones too, where their rows are dropped
  int ranks_;
  int top_k_;
  std::optional<int> most_;
  PrunedRows pruned_;
};

}  // namespace moecast
