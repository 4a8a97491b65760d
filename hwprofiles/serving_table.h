#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace moecast {

/// One measured load on a deployment that serves a model, its defects mended.
struct ServingRow {
  std::string model;    ///< "deepseek-ai/DeepSeek-V3"
  std::string system;   ///< "h200_sxm"
  std::string engine;   ///< "sglang"
  std::string version;  ///< may be empty
  std::string date;     ///< of the run, "2026-01-14"; empty where the table does not say
  std::string gemm_dtype, expert_dtype;
  double prompt = 0;       ///< tokens of a prompt
  double output = 0;       ///< tokens generated for it
  double concurrency = 0;  ///< requests in flight on all ranks
  int tp = 1, dp = 1, moe_tp = 1, ep = 1;
  double ttft_s = 0;
  double tpot_s = 0;
  /// The same deployment and load was measured again with a TPOT that differs by more than a quarter: something that
  /// the table does not say differs.
  bool twin_differs = false;
};

/// Whether it is a day, as "2026-01-14": days compare as texts do.
bool is_day(std::string_view text);

struct ServingTable {
  std::vector<ServingRow> rows;
  std::int64_t read = 0;
  std::map<std::string, std::int64_t> left_out;  ///< reason -> rows
};

/// Reads end-to-end measurements (CSV, gzip or not). Columns: backend, backend_version, model_path, system, precision,
/// isl, osl, gemm_quant_mode, moe_quant_mode, batch_size, tp_size, pp_size, attention_dp_size (may be empty),
/// moe_tp_size, moe_ep_size, silicon_ttft_ms, silicon_tpot_ms; where there is one, silicon_data_source with
/// "measured=2026-01-14" and "silicon_concurrency=32", which counts more than batch x replicas.
///
/// Mended: rows where tp x ep was stored as a product, missing replicas of attention. Left out: the same run again
/// under another id, or as both DeepSeek-R1 and V3.
/// @throws InputError naming line and column.
ServingTable read_serving_table(const std::string& path);

}  // namespace moecast
