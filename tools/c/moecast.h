/// The C interface of moecast: how long a Mixture-of-Experts (MoE) layer or model takes on hardware that was measured.
///
///     moecast_predictor* predictor = NULL;
///     moecast_moe_config layer = MOECAST_MOE_CONFIG_INIT;
///     moecast_estimate answer = MOECAST_ESTIMATE_INIT;
///     layer.hidden = 1024, layer.width = 2048, layer.experts = 16, layer.top_k = 2, layer.tokens = 64;
///     if (moecast_open("amd-epyc-2cpu", NULL, &predictor) != MOECAST_OK ||
///         moecast_estimate_latency(predictor, &layer, &answer) != MOECAST_OK) {
///       fprintf(stderr, "%s\n", moecast_last_error());
///     }
///     moecast_close(predictor);
///
/// C99; moecast.hpp wraps it for C++17. Compile and link with `pkg-config --cflags --libs moecast`.
///
/// - Units are SI: seconds, bytes, FLOPs. Names say which. A number that nobody knows is NaN.
/// - Text is UTF-8 and ends in a zero byte. Text that is passed in is copied: it may go when the call returns.
/// - A call that fails returns its moecast_status and writes nothing but NULL to handles and texts;
/// moecast_last_error()
///   says where, what is wrong and how to mend it. No call ends the process, none throws.
/// - Threads: one predictor may be asked from many threads at once, without a lock. Closing it is up to one of them,
/// after
///   the last answer. Errors are a thread's own.
/// - Structs begin with their size, and further fields come at the end: start from the ..._INIT of the header that you
///   compile with. A library that is newer takes the struct of an older header; an older one refuses a newer struct.
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MOECAST_API __attribute__((visibility("default")))
#else
#define MOECAST_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/// What came of a call. Numbers are the exit codes of the program.
typedef enum moecast_status {
  MOECAST_OK = 0,
  MOECAST_USAGE = 2,   ///< an argument is wrong or contradicts another; a name that nobody knows
  MOECAST_INPUT = 3,   ///< a file, or JSON text, cannot be used
  MOECAST_DEVICE = 4,  ///< the machine lacks or refuses something; out of memory
  MOECAST_BUG = 70     ///< a defect of moecast: please report it
} moecast_status;

/// What an answer says. "Does not fit" is an answer, not an error.
typedef enum moecast_outcome {
  MOECAST_OUTCOME_OK = 0,
  MOECAST_OUTCOME_DOES_NOT_FIT =
      1,  ///< in the memory of a rank; memory_bytes and memory_capacity_bytes say by how much
  MOECAST_OUTCOME_OUTSIDE_RANGE = 2  ///< nothing measured answers it; `reason` says what is missing
} moecast_outcome;

/// Where a number comes from, strongest first; an answer has the weakest that it used.
typedef enum moecast_origin {
  MOECAST_ORIGIN_MEASURED = 0,
  MOECAST_ORIGIN_INTERPOLATED = 1,
  MOECAST_ORIGIN_FITTED = 2,
  MOECAST_ORIGIN_EXTRAPOLATED = 3,
  MOECAST_ORIGIN_DATASHEET = 4,
  MOECAST_ORIGIN_ASSUMED = 5
} moecast_origin;

/// Factors that moecast_moe_config::without removes. Removing one never slows.
enum {
  MOECAST_WITHOUT_ALL_TO_ALL = 1,
  MOECAST_WITHOUT_MEMORY_BANDWIDTH = 2,
  MOECAST_WITHOUT_ROUTING_OVERHEAD = 4,
  MOECAST_WITHOUT_EXPERT_PARALLEL_EFFICIENCY = 8,  ///< n ranks are n times as fast as one
  MOECAST_WITHOUT_IMBALANCE = 16                   ///< every expert gets as many rows
};

/// A machine that was measured, and how it is used. Opaque and immutable.
typedef struct moecast_predictor moecast_predictor;

/// How a machine is used. NULL and 0 stand for the defaults.
typedef struct moecast_settings {
  size_t struct_size;    ///< sizeof(moecast_settings)
  const char* backend;   ///< "onednn", "vllm-0.24.0"; NULL = the profile's first
  const char* dtype;     ///< of weights and activations: "bf16"; NULL = the model's, or what was profiled
  const char* strategy;  ///< of a CPU: "sorted-grouped" (NULL), "per-expert-loop", "capacity-padded", "dense-mask"
  const char* data;      ///< folder with models/zoo and hwprofiles; NULL = $MOECAST_DATA, else share/moecast beside the
                         ///< library or the program, else the source tree that the library was built from
  int32_t threads;       ///< of a CPU, 1 to 4096; 0 = as many as were profiled
  uint32_t reserved;     ///< 0
} moecast_settings;
#define MOECAST_SETTINGS_INIT {sizeof(moecast_settings), NULL, NULL, NULL, NULL, 0, 0}

/// A lone MoE layer and the tokens that pass it.
typedef struct moecast_moe_config {
  size_t struct_size;      ///< sizeof(moecast_moe_config)
  int64_t hidden;          ///< width of a token, 1 to 2^24
  int64_t width;           ///< intermediate width of an expert, 1 to 2^24
  int64_t experts;         ///< 1 to 65536
  int64_t top_k;           ///< experts a token uses, 1 to `experts`
  int64_t tokens;          ///< that pass the layer, on all ranks together, 1 to 2^24
  int64_t shared_experts;  ///< that every token passes, 0 to 4096
  int32_t gated;           ///< 1: gate, up and down matrices; 0: up and down
  int32_t pad;             ///< 1: the slots of a capacity are computed empty too; 0: they are not
  double capacity_factor;  ///< slots an expert = factor tokens top_k / experts, 1e-6 to 1e6; 0 = no limit
  const char* activation;  ///< "silu" (NULL), "gelu", "relu", "relu-squared", "identity"
  const char* overflow;    ///< "drop" (NULL) or "next-best", where capacity is limited
  const char* load;        ///< "uniform" (NULL; of GPUs "log-normal:1"), "zipf:1.0", "power-law:1.2", "dirichlet:0.5",
                           ///< "log-normal:1.05", "histogram:3,1,1", "trace:FILE" (read at every call)
  uint64_t seed;           ///< of a random load
  const int64_t* rows;     ///< exact rows of each expert instead of a load; NULL = none
  size_t rows_count;       ///< of `rows`: `experts`, or 0
  int64_t copies;          ///< equal layers cycled through, 1 to 4096: what caches still hold (CPUs)
  int32_t tp;              ///< tensor-parallel ranks, 1 to 4096
  int32_t ep;         ///< expert-parallel ranks, 1 to 4096: moe_tp ep = tp dp; GPUs take dp = ep where tp and dp are 1
  int32_t dp;         ///< data-parallel ranks, 1 to 4096
  int32_t moe_tp;     ///< tensor-parallel ranks inside an expert, 1 to 4096; 0 = tp dp / ep
  uint32_t without;   ///< factors to remove: MOECAST_WITHOUT_..., or-ed
  uint32_t reserved;  ///< 0
} moecast_moe_config;
#define MOECAST_MOE_CONFIG_INIT \
  {sizeof(moecast_moe_config), 0, 0, 0, 0, 0, 0, 1, 0, 0.0, NULL, NULL, NULL, 1, NULL, 0, 1, 1, 1, 1, 0, 0, 0}

/// Bytes of the texts of an estimate, with the zero byte; a longer text is cut.
enum { MOECAST_BOTTLENECK_BYTES = 32, MOECAST_REASON_BYTES = 256 };

/// One answer. Times and the rate are NaN unless the outcome is MOECAST_OUTCOME_OK.
typedef struct moecast_estimate {
  size_t struct_size;         ///< sizeof(moecast_estimate), before the call
  int32_t outcome;            ///< a moecast_outcome
  int32_t origin;             ///< a moecast_origin; MOECAST_ORIGIN_ASSUMED where there is no latency
  double latency_s;           ///< of the layer, on the slowest rank
  double latency_low_s;       ///< of the interval that holds a measurement with probability confidence_ratio
  double latency_high_s;      ///< its other end
  double confidence_ratio;    ///< 0.9
  double all_to_all_s;        ///< factor: exchanges between ranks; shares of the latency exclude each other
  double memory_bandwidth_s;  ///< factor: weights and activations are waited for
  double routing_overhead_s;  ///< factor: router, permutation, combination
  double expert_parallel_efficiency_ratio;    ///< factor: t(1 rank) / (n t(n ranks)) in (0, 1]; NaN = not known
  double compute_s;                           ///< what arithmetic takes
  double throughput_tokens_per_s;             ///< of all ranks together
  double weights_bytes;                       ///< on a rank, as all memory here
  double activations_bytes;                   ///< at their peak
  double workspace_bytes;                     ///< that kernels need
  double memory_bytes;                        ///< all of these
  double memory_capacity_bytes;               ///< that the rank has; NaN where the profile does not say
  double flops;                               ///< useful arithmetic of a rank; NaN where it is not known
  double total_parameters;                    ///< of the layer, on all ranks together
  double active_parameters;                   ///< that one token uses
  char bottleneck[MOECAST_BOTTLENECK_BYTES];  ///< "compute", "memory_bandwidth", "router", "all_to_all", ...
  char reason[MOECAST_REASON_BYTES];          ///< why there is no latency; "" where there is one
} moecast_estimate;
#define MOECAST_ESTIMATE_INIT \
  {sizeof(moecast_estimate), 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "", ""}

/// Version of the library, "0.1.0". Lives as long as the library.
MOECAST_API const char* moecast_version(void);

/// What the last call that failed on this thread said: "where: what (how to mend it)". Empty before the first. Never
/// NULL; valid until another call fails on the thread, or the thread ends.
MOECAST_API const char* moecast_last_error(void);

/// Opens a machine: reads its profile and calibration, milliseconds.
/// @param hw         a name of `moecast list hw`, "this-machine", or the folder of a profile.
/// @param settings   NULL = the defaults.
/// @param predictor  the handle, for moecast_close; NULL when the call fails.
/// @return MOECAST_USAGE for a name that is not known, MOECAST_INPUT for a profile that cannot be read.
MOECAST_API moecast_status moecast_open(const char* hw, const moecast_settings* settings,
                                        moecast_predictor** predictor);

/// Frees a handle; NULL is nothing to do.
MOECAST_API void moecast_close(moecast_predictor* predictor);

/// One step of a model, or a lone layer, with everything that is known of it.
/// @param question_json  an object with fields named as in Python's `Predictor.predict`; null = not given.
///   Of a model: architecture (its name in `moecast list models`, the path of a file, or the own schema or a Hugging
///   Face configuration as an object), phase, batch, context, prompt, source, prefill_batch, prefix, max_context,
///   kv_dtype, all_reduce, draft_tokens, acceptance.
///   Of a layer: hidden, width, experts, top_k, tokens, gated, shared_experts, activation, capacity_factor, overflow,
///   pad, rows (a list).
///   Of both: tp, ep, dp, pp, cp, moe_tp, micro_batches, redundant_experts, eager, load, seed, copies, and without (a
///   list of "all-to-all", "memory-bandwidth", "routing-overhead", "imbalance").
///   E.g. {"architecture": "olmoe-1b-7b", "batch": 8, "context": 4096}.
/// @param answer_json    what `moecast predict --format json` prints, for moecast_free; NULL when the call fails.
/// @return MOECAST_INPUT for text that is no such object, MOECAST_USAGE for fields that contradict each other.
MOECAST_API moecast_status moecast_predict(const moecast_predictor* predictor, const char* question_json,
                                           char** answer_json);

/// Frees a text of moecast_predict; NULL is nothing to do.
MOECAST_API void moecast_free(char* answer_json);

/// What moecast_predict says of a lone layer, without any JSON: for searches that ask again and again. Nothing has to
/// be freed.
/// @param config    start from MOECAST_MOE_CONFIG_INIT.
/// @param estimate  start from MOECAST_ESTIMATE_INIT; untouched when the call fails. May be used for the next call as
/// it
///                  is.
/// @return MOECAST_USAGE for a field that is out of range or contradicts another.
MOECAST_API moecast_status moecast_estimate_latency(const moecast_predictor* predictor,
                                                    const moecast_moe_config* config, moecast_estimate* estimate);

#ifdef __cplusplus
}
#else
/// The same by the name that architecture searches know; the class of moecast.hpp for C.
typedef moecast_predictor HardwareAwareMoE;

static inline moecast_status HardwareAwareMoE_open(const char* hardware_profile, const moecast_settings* settings,
                                                   HardwareAwareMoE** moe) {
  return moecast_open(hardware_profile, settings, moe);
}

static inline void HardwareAwareMoE_close(HardwareAwareMoE* moe) { moecast_close(moe); }

static inline moecast_status HardwareAwareMoE_estimate_latency(const HardwareAwareMoE* moe,
                                                               const moecast_moe_config* moe_config,
                                                               moecast_estimate* estimate) {
  return moecast_estimate_latency(moe, moe_config, estimate);
}
#endif
