#include "sim/event/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

namespace moecast {
namespace {

/// Process of everything that belongs to no rank; rank r is process r + 1.
constexpr int kFabric = 0;
constexpr double kMicro = 1e6;

std::string json_text(std::string_view text) {
  return nlohmann::json(std::string(text)).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

/// "rank 3 port out" -> 3 and "port out".
std::optional<std::pair<int, std::string>> owner_of(const std::string& resource) {
  constexpr std::string_view kRank = "rank ";
  if (!resource.starts_with(kRank)) return std::nullopt;
  int rank = 0;
  const char* const end = resource.data() + resource.size();
  const auto [rest, error] = std::from_chars(resource.data() + kRank.size(), end, rank);
  if (error != std::errc() || rest + 1 >= end) return std::nullopt;
  return std::pair(rank, std::string(rest + 1, end));
}

/// Kernels that only join others take no time and are not shown.
bool shown(const EventGraph& graph, const EventTimes& times, int task) {
  const auto at = static_cast<std::size_t>(task);
  return graph.rank(task) >= 0 || graph.kind(task) != TaskKind::kernel || times.end_s[at] > times.start_s[at];
}

}  // namespace

TraceWriter::TraceWriter(int ranks, std::map<int, std::string> streams) : ranks_(ranks), streams_(std::move(streams)) {
  text_ = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";
}

void TraceWriter::emit(std::string_view event) {
  if (events_++ > 0) text_ += ",\n";
  text_ += event;
}

TraceWriter::Track TraceWriter::stream_track(int rank, int stream) {
  const auto known = streams_.find(stream);
  const std::string name = known == streams_.end() ? fmt::format("stream {}", stream) : known->second;
  const int process = rank < 0 ? kFabric : rank + 1;
  const auto [at, fresh] = threads_.try_emplace({process, name}, 1 + stream);
  return {process, at->second};
}

TraceWriter::Track TraceWriter::link_track(const std::string& resource) {
  const auto owner = owner_of(resource);
  const int process = owner ? owner->first + 1 : kFabric;
  constexpr int kFirstLink = 10000;
  const auto [at, fresh] =
      threads_.try_emplace({process, owner ? owner->second : resource}, kFirstLink + static_cast<int>(threads_.size()));
  return {process, at->second};
}

void TraceWriter::slice(Track track, std::string_view name, std::string_view category, double start_s, double end_s,
                        std::string_view arguments) {
  emit(fmt::format(R"({{"ph":"X","pid":{},"tid":{},"ts":{:.6f},"dur":{:.6f},"name":{},"cat":"{}","args":{{{}}}}})",
                   track.process, track.thread, kMicro * start_s, kMicro * std::max(0.0, end_s - start_s),
                   json_text(name), category, arguments));
}

void TraceWriter::flow(char phase, std::int64_t id, Track track, double at_s) {
  emit(fmt::format(R"({{"ph":"{}","pid":{},"tid":{},"ts":{:.6f},"id":{},"name":"tokens","cat":"tokens"{}}})", phase,
                   track.process, track.thread, kMicro * at_s, id, phase == 's' ? "" : R"(,"bp":"e")"));
}

/// Links and buses: a slice a demand, as long as its bytes flow.
void TraceWriter::add_links(const EventGraph& graph, const EventTimes& times, int task, double offset_s,
                            std::string_view label) {
  const auto at = static_cast<std::size_t>(task);
  const double start = times.start_s[at] + graph.delay_s(task);
  for (const EventGraph::StoredDemand& demand : graph.demands(task)) {
    // Where something is shared, a demand is known to end with its task; alone it ends by its own rate.
    const double alone = start + demand.amount / graph.rate_alone(demand);
    const double end = times.contended ? times.end_s[at] : std::min(alone, times.end_s[at]);
    const double rate = end > start ? demand.amount / (end - start) : 0;
    for (const int resource : graph.resources_of(demand)) {
      const EventResource& used = graph.resources()[static_cast<std::size_t>(resource)];
      const auto owner = owner_of(used.name);
      const bool memory = owner && owner->second == "memory";
      if (!memory) {
        slice(
            link_track(used.name), fmt::format("{}{}", label, to_string(graph.kind(task))), "link", offset_s + start,
            offset_s + end,
            fmt::format(R"("bytes":{:.0f},"capacity_bytes_per_s":{:.0f})", demand.amount, used.capacity + used.others));
      }
      auto& changes =
          rates_[{owner ? owner->first + 1 : kFabric, fmt::format("{} GB/s", owner ? owner->second : used.name)}];
      changes.emplace(offset_s + start, rate / 1e9);
      changes.emplace(offset_s + end, -rate / 1e9);
    }
  }
}

/// What others take of links, as long as the graph.
void TraceWriter::add_others(const EventGraph& graph, const EventTimes& times, double offset_s) {
  const double end = offset_s + times.makespan_s;
  for (const EventResource& link : graph.resources()) {
    if (link.others <= 0) continue;
    slice(link_track(link.name), "background", "link", offset_s, end,
          fmt::format(R"("bytes":{:.0f},"capacity_bytes_per_s":{:.0f})", link.others * times.makespan_s,
                      link.capacity + link.others));
    const auto owner = owner_of(link.name);
    auto& changes =
        rates_[{owner ? owner->first + 1 : kFabric, fmt::format("{} GB/s", owner ? owner->second : link.name)}];
    changes.emplace(offset_s, link.others / 1e9);
    changes.emplace(end, -link.others / 1e9);
  }
}

/// From a dispatch to the experts of each rank to the combine that waits for them.
void TraceWriter::add_arrows(const EventGraph& graph, const EventTimes& times, double offset_s) {
  const auto tasks = static_cast<std::size_t>(graph.tasks());
  std::vector<int> dispatch_of(tasks, -1);
  for (int task = 0; task < graph.tasks(); ++task) {
    for (const int earlier : graph.after(task)) {
      if (graph.kind(task) == TaskKind::kernel && graph.rank(task) >= 0 && graph.kind(earlier) == TaskKind::dispatch) {
        dispatch_of[static_cast<std::size_t>(task)] = earlier;
      }
    }
  }
  for (int combine = 0; combine < graph.tasks(); ++combine) {
    if (graph.kind(combine) != TaskKind::combine || graph.after(combine).empty()) continue;
    const int join = graph.after(combine).front();
    for (const int experts : graph.after(join)) {
      const int dispatch = dispatch_of[static_cast<std::size_t>(experts)];
      if (dispatch < 0) continue;
      const int rank = graph.rank(experts);
      const auto time = [&](const std::vector<double>& of, int task) {
        return offset_s + of[static_cast<std::size_t>(task)];
      };
      const std::int64_t id = ++flows_;
      flow('s', id, stream_track(rank, graph.stream(dispatch)), time(times.start_s, dispatch));
      flow('t', id, stream_track(rank, graph.stream(experts)), time(times.start_s, experts));
      flow('f', id, stream_track(rank, graph.stream(combine)), time(times.start_s, combine));
    }
  }
}

void TraceWriter::add(const EventGraph& graph, const EventTimes& times, double offset_s, std::string_view label) {
  for (int task = 0; task < graph.tasks(); ++task) {
    if (!shown(graph, times, task)) continue;
    const auto at = static_cast<std::size_t>(task);
    const double start = offset_s + times.start_s[at];
    const double end = offset_s + times.end_s[at];
    const std::string name = fmt::format("{}{}", label, graph.name(task));
    const std::string_view category = to_string(graph.kind(task));
    if (graph.rank(task) >= 0) {
      slice(stream_track(graph.rank(task), graph.stream(task)), name, category, start, end);
    } else {
      for (int rank = 0; rank < ranks_; ++rank) {
        slice(stream_track(rank, graph.stream(task)), name, category, start, end);
      }
    }
    add_links(graph, times, task, offset_s, label);
  }
  add_others(graph, times, offset_s);
  add_arrows(graph, times, offset_s);
}

void TraceWriter::add_host(int stream, std::string_view name, double start_s, double end_s) {
  for (int rank = 0; rank < ranks_; ++rank) slice(stream_track(rank, stream), name, "host", start_s, end_s);
}

std::string TraceWriter::finish(std::string_view source) {
  constexpr double kNoise = 1e-9;  // of sums that should be zero, GB/s
  for (const auto& [counter, changes] : rates_) {
    double value = 0;
    for (auto change = changes.begin(); change != changes.end();) {
      const double at = change->first;
      for (; change != changes.end() && change->first == at; ++change) value += change->second;
      if (std::abs(value) < kNoise) value = 0;
      emit(fmt::format(R"({{"ph":"C","pid":{},"ts":{:.6f},"name":{},"args":{{"value":{:.6f}}}}})", counter.first,
                       kMicro * at, json_text(counter.second), std::max(0.0, value)));
    }
  }
  std::set<int> processes;
  for (const auto& [track, thread] : threads_) {
    processes.insert(track.first);
    emit(fmt::format(R"({{"ph":"M","pid":{},"tid":{},"name":"thread_name","args":{{"name":{}}}}})", track.first, thread,
                     json_text(track.second)));
    emit(fmt::format(R"({{"ph":"M","pid":{},"tid":{},"name":"thread_sort_index","args":{{"sort_index":{}}}}})",
                     track.first, thread, thread));
  }
  for (const auto& [counter, changes] : rates_) processes.insert(counter.first);
  for (const int process : processes) {
    const std::string name = process == kFabric ? "fabric" : fmt::format("rank {}", process - 1);
    emit(fmt::format(R"({{"ph":"M","pid":{},"name":"process_name","args":{{"name":{}}}}})", process, json_text(name)));
    emit(fmt::format(R"({{"ph":"M","pid":{},"name":"process_sort_index","args":{{"sort_index":{}}}}})", process,
                     process));
  }
  text_ += fmt::format("\n],\"otherData\":{{\"source\":{}}}}}\n", json_text(source));
  return std::move(text_);
}

}  // namespace moecast
