#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/core/json.h"
#include "models/routing/assignment.h"
#include "models/routing/byte_matrix.h"

namespace moecast {

/// What ranks are timed at. Buffers of collectives as NCCL's tests count them: a rank's whole buffer (output of an
/// all-gather, input of the others).
enum class MpiKind {
  point_to_point,  ///< rank 0 to the last rank
  all_reduce,
  all_gather,
  reduce_scatter,
  all_to_all,
  all_to_all_v,  ///< a given byte matrix, everything under way at once
  attention,     ///< of a rank's own tokens, on the first ranks while the others wait
  local_work,    ///< gate, permute and unpermute of a layer, on the first ranks while the others wait
  experts,       ///< experts of a layer, on the first ranks, `touched` local experts with their share of `rows`
  moe_layer      ///< attention where asked, route, dispatch, experts, combine on all ranks
};
std::string_view to_string(MpiKind kind);
std::optional<MpiKind> find_mpi_kind(std::string_view name);

/// One MoE layer over ranks, experts contiguous, fp32, a copy of a token for each of its experts. Tokens are
/// data-parallel over all ranks; experts lie on groups of `tp` ranks, of which each computes a share of their width.
struct MpiLayer {
  std::int64_t tokens = 0;  ///< of each rank
  std::int64_t hidden = 0;
  std::int64_t width = 0;
  int experts = 0;  ///< of all ranks
  int top_k = 1;
  bool gated = true;
  double zipf = 0;  ///< exponent of the experts' popularity; 0: uniform
  std::uint64_t seed = 1;
  int tp = 1;     ///< ranks that share an expert's width
  int heads = 0;  ///< of causal attention over a rank's tokens, one sequence, before the experts; 0: none
};

struct MpiPoint {
  MpiKind kind = MpiKind::point_to_point;
  double bytes = 0;
  std::optional<ByteMatrix> matrix{};
  MpiLayer layer{};
  std::int64_t rows = 0;     ///< experts: of each of these ranks
  std::int64_t touched = 0;  ///< experts: that have rows
  int at_once = 1;           ///< local_work, experts: ranks that compute side by side
};

struct MpiPlan {
  int ranks = 0;
  int repeats = 5;  ///< after one that is not counted
  std::vector<MpiPoint> points;
};

/// Rows of senders. @throws InputError naming the pointer unless it is square, of so many ranks, without a negative
/// number, at most 64 GiB a sender, and moves something.
ByteMatrix parse_byte_matrix(const JsonView& view, int ranks);

/// @throws InputError naming the pointer: unknown kind or key, a matrix that is not square, negative, or sums to
/// nothing, sizes out of range, more than 64 GiB a rank.
MpiPlan parse_mpi_plan(std::string_view text, const std::string& where);
std::string mpi_plan_text(const MpiPlan& plan);

/// Seconds of every repeat: the slowest rank, from a barrier on.
struct MpiTimes {
  std::vector<double> seconds;
  std::map<std::string, double> phases;  ///< of a layer, seconds of the slowest rank, median of the repeats
};
struct MpiResults {
  std::string library;  ///< "openmpi-4.1.4"
  std::vector<MpiTimes> points;
};
MpiResults parse_mpi_results(std::string_view text, const std::string& where);
std::string mpi_results_text(const MpiResults& results);

/// Which experts the tokens of all ranks choose: the same wherever it is drawn.
Assignment draw_mpi_routing(const MpiLayer& layer, int ranks);
struct MpiTraffic {
  ByteMatrix dispatch{1};  ///< the diagonal stays on its rank
  std::vector<double> rows_per_expert;
};
/// What that sends, and what experts get: a copy of a row to each rank that shares its expert.
MpiTraffic mpi_traffic(const MpiLayer& layer, int ranks, const Assignment& assignment);
/// How many rows of each of its experts will come: every rank tells every other before rows travel.
ByteMatrix mpi_count_bytes(const MpiLayer& layer, int ranks);

}  // namespace moecast
