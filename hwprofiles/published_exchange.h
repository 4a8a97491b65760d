#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace moecast {

/// A dispatch, a combine or an all-to-all as its authors published it. Unknown is nullopt.
struct PublishedExchange {
  std::string operation;  ///< dispatch, combine, alltoall
  std::string library;    ///< "DeepEP V1"
  std::string gpu;        ///< "H800"
  std::string mode;       ///< "low-latency pure RDMA"; may be empty
  std::string fabric;     ///< "EFA 400Gb"; may be empty
  double nodes = 1;
  double ranks = 1;
  std::optional<double> tokens;  ///< a rank
  std::optional<double> hidden, top_k, experts;
  bool fp8 = false;              ///< rows in fp8 with scales; else 16 bits
  std::optional<double> nvlink;  ///< of one direction, B/s
  std::optional<double> bytes;   ///< a rank
  std::optional<double> seconds;
  std::optional<double> bandwidth;  ///< of the logical bytes, B/s
  std::string where;                ///< file and line
};

struct PublishedTable {
  std::vector<PublishedExchange> rows;
  std::int64_t read = 0;
  std::map<std::string, std::int64_t> left_out;  ///< reason -> rows
};

/// Whether a file starts with the columns of such a table.
bool is_published_table(const std::string& path);

/// Columns (more may be there): op, library, gpu, nodes, ep, fabric, nvlink_GBps, tokens_per_rank, hidden, topk,
/// experts, dtype, bytes_per_rank, latency_us, bw_GBps, mode. Left out and counted: both ways together, unknown nodes
/// or ranks, neither a latency nor a bandwidth.
/// @throws InputError naming line and column.
PublishedTable read_published_table(const std::string& path);

}  // namespace moecast
