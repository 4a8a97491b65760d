#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "sim/event/event_graph.h"

namespace moecast {

/// Simulated tasks as a Chrome trace (JSON), which ui.perfetto.dev opens: a process a rank with a track a stream and a
/// track a link, arrows from dispatch to experts to combine, counters of link and memory bandwidth. Links of nobody
/// ("leaf 1 up") and tasks of all ranks lie in a process of the fabric.
class TraceWriter {
 public:
  /// @param ranks  of which tasks for all ranks are shown on each. @param streams  names of streams by number.
  TraceWriter(int ranks, std::map<int, std::string> streams);
  /// Appends a graph that starts at `offset_s`. @param label  in front of the names of its tasks ("layer 3 ").
  void add(const EventGraph& graph, const EventTimes& times, double offset_s, std::string_view label);
  /// What every rank's host does on its stream, seconds from the beginning.
  void add_host(int stream, std::string_view name, double start_s, double end_s);
  /// The whole document. Call once.
  [[nodiscard]] std::string finish(std::string_view source);
  [[nodiscard]] std::int64_t events() const { return events_; }

 private:
  struct Track {
    int process, thread;
    friend auto operator<=>(const Track&, const Track&) = default;
  };
  Track stream_track(int rank, int stream);
  Track link_track(const std::string& resource);
  void emit(std::string_view event);
  void slice(Track track, std::string_view name, std::string_view category, double start_s, double end_s,
             std::string_view arguments = {});
  void flow(char phase, std::int64_t id, Track track, double at_s);
  void add_links(const EventGraph& graph, const EventTimes& times, int task, double offset_s, std::string_view label);
  void add_others(const EventGraph& graph, const EventTimes& times, double offset_s);
  void add_arrows(const EventGraph& graph, const EventTimes& times, double offset_s);

  int ranks_;
  std::map<int, std::string> streams_;
  std::string text_;
  std::int64_t events_ = 0;
  std::int64_t flows_ = 0;
  std::map<std::pair<int, std::string>, int> threads_;  ///< named tracks of a process
  /// (process, counter) -> changes of a rate at times, seconds.
  std::map<std::pair<int, std::string>, std::multimap<double, double>> rates_;
};

}  // namespace moecast
