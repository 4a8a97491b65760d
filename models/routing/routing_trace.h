#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/core/csv_line.h"
#include "models/routing/assignment.h"
#include "models/routing/inclusion.h"
#include "models/routing/load.h"

namespace moecast {

/// One line of a recorded routing: the experts that a token chose in a layer.
struct RoutedToken {
  std::uint64_t line = 0;
  int layer = 0;  ///< as the file numbers it
  std::int64_t token = 0;
  std::vector<std::int32_t> experts;
};

/// Lines of a recorded routing, checked one after another.
///
/// CSV with a header layer,token,expert_0,expert_1,... (one column a chosen expert), or JSON lines
/// {"layer": 0, "token": 0, "experts": [3, 7]}. Tokens of a layer ascend. Layers ascend and start over at the first
/// one: a file may hold layer after layer, step after step or token after token.
class RoutingTraceLines {
 public:
  /// @param where  of errors: the file.
  explicit RoutingTraceLines(std::string where) : where_(std::move(where)) {}
  /// @return nullptr for the header and for empty lines; else the token, until the next call.
  /// @throws InputError naming the line: no number, an expert id out of [0, 65536) or twice, another number of experts
  /// than the first token has, a token or a layer out of order.
  const RoutedToken* parse(std::uint64_t number, std::string_view line);
  [[nodiscard]] int top_k() const { return top_k_; }
  /// Layers so far, as the file numbers them, in the order of the file (ascending).
  [[nodiscard]] const std::vector<int>& layers() const { return layers_; }
  /// Place of the last token's layer among them.
  [[nodiscard]] std::size_t layer_index() const { return layer_; }

 private:
  [[noreturn]] void refuse(const std::string& what, const std::string& hint = {}) const;
  void parse_csv(std::string_view line);
  void parse_object(std::string_view line);
  void read_header(std::string_view line);
  [[nodiscard]] std::int64_t number(std::string_view cell, std::string_view column, std::int64_t high) const;
  void check_experts();
  void check_order();

  std::string where_;
  std::uint64_t number_ = 0;
  bool json_ = false;
  std::size_t columns_ = 0;  ///< of the header; 0: no header yet
  CsvLine cells_;
  RoutedToken token_;
  int top_k_ = 0;
  std::vector<int> layers_;
  std::vector<std::int64_t> last_token_;  ///< of each layer
  std::size_t layer_ = 0;
  bool first_pass_ = true;  ///< layers have not started over yet
};

/// How often each expert was chosen in each layer of a recorded routing: what one pass over a file of any size leaves.
struct RoutingTrace {
  std::string path;
  int top_k = 0;
  std::vector<int> layers;                      ///< as the file numbers them
  std::vector<std::int64_t> tokens;             ///< of each layer
  std::vector<std::vector<std::int64_t>> rows;  ///< [layer][expert], as long as the highest expert of the layer says
  std::int32_t highest_expert = -1;
  std::uint64_t highest_line = 0;  ///< where it stands

  /// Counts a line. @throws InputError when layers and experts would make more than 2^24 counters.
  void count(const RoutedToken& token, std::size_t layer);
};

/// One pass in bounded memory: a line at a time, gzip recognised.
/// @throws InputError as RoutingTraceLines, and on a file without a token.
RoutingTrace read_routing_trace(const std::string& path);

/// Selection weights of a typical layer, whose draws of top_k distinct experts choose as unevenly as was recorded: the
/// mean over layers, each in the order of its experts' popularity (most popular first). Which expert is which is lost.
/// An expert that was never chosen counts half a token.
/// @throws InputError naming the line of an expert beyond `experts`.
std::vector<double> trace_popularity(const RoutingTrace& trace, std::int64_t experts);

/// The same by the experts' numbers, whose exact inclusion is what was recorded. @param layer  its place in the order
/// of the file; nullopt: mean over all layers.
std::vector<double> recorded_popularity(const RoutingTrace& trace, std::int64_t experts,
                                        std::optional<std::size_t> layer);

/// Share of the layer's tokens that chose each expert, as it stands in the file.
std::vector<double> recorded_shares(const RoutingTrace& trace, std::int64_t experts, std::size_t layer);

/// Selection weights from how likely a token chooses each expert (sum: k). Inverse of inclusion_probability, to 1e-4
/// relative (to 1e-5 of a certain choice). @param inclusion  each in (0, 1).
std::vector<double> popularity_of_inclusion(std::span<const double> inclusion, int top_k,
                                            Inclusion how = Inclusion::quick);

/// Whole windows of so many tokens that every layer holds. @throws InputError when there is none.
std::int64_t trace_windows(const RoutingTrace& trace, std::int64_t tokens);

/// Cuts a recorded routing into windows of so many tokens a layer and hands each over when it is complete. Memory:
/// one window of each layer.
/// @param windows  so many of each layer; what follows is not read.
/// @param each     layer: its place in the order of the file; the assignment lives until the call returns.
/// @throws InputError as read_routing_trace, and on an expert beyond `experts`.
void read_trace_windows(const std::string& path, int experts, std::int64_t tokens, std::int64_t windows,
                        const std::function<bool(std::size_t layer, std::int64_t window, Assignment&)>& each);

}  // namespace moecast
