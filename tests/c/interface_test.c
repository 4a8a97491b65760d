/* moecast.h from C99, and from nothing but it. One check a run: its name is the argument. */
#define _POSIX_C_SOURCE 200809L /* popen */
#include <math.h>
#include <moecast.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CPU "amd-epyc-2cpu"
#define GPU "h200-sxm"

static int failures = 0;

#define EXPECT(condition)                                                      \
  do {                                                                         \
    if (!(condition)) {                                                        \
      fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                              \
    }                                                                          \
  } while (0)

static moecast_predictor* opened(const char* hw) {
  moecast_predictor* predictor = NULL;
  if (moecast_open(hw, NULL, &predictor) != MOECAST_OK) {
    fprintf(stderr, "%s\n", moecast_last_error());
    exit(1);
  }
  return predictor;
}

static moecast_moe_config layer(void) {
  moecast_moe_config config = MOECAST_MOE_CONFIG_INIT;
  config.hidden = 512;
  config.width = 1024;
  config.experts = 8;
  config.top_k = 2;
  config.tokens = 64;
  return config;
}

/* The call fails with this status, and the text says this. */
static void expect_refused(moecast_status got, moecast_status wanted, const char* said) {
  if (got == wanted && strstr(moecast_last_error(), said) != NULL) return;
  fprintf(stderr, "status %d, expected %d; \"%s\" does not say \"%s\"\n", (int)got, (int)wanted, moecast_last_error(),
          said);
  ++failures;
}

static void estimates_latency(void) {
  HardwareAwareMoE* moe = NULL;
  const moecast_moe_config moe_config = layer();
  moecast_estimate estimate = MOECAST_ESTIMATE_INIT;
  EXPECT(HardwareAwareMoE_open(CPU, NULL, &moe) == MOECAST_OK);
  EXPECT(HardwareAwareMoE_estimate_latency(moe, &moe_config, &estimate) == MOECAST_OK);
  EXPECT(estimate.outcome == MOECAST_OUTCOME_OK);
  EXPECT(estimate.latency_s > 0 && estimate.latency_s < 1);
  EXPECT(estimate.latency_low_s < estimate.latency_s && estimate.latency_s < estimate.latency_high_s);
  EXPECT(estimate.confidence_ratio == 0.9);
  EXPECT(estimate.origin <= MOECAST_ORIGIN_EXTRAPOLATED);
  /* 8 experts of 3 x 512 x 1024, a router of 512 x 8, norms of 512. */
  EXPECT(estimate.total_parameters >= 8 * 3 * 512 * 1024 + 512 * 8);
  EXPECT(estimate.total_parameters <= 8 * 3 * 512 * 1024 + 512 * 8 + 4 * 512);
  EXPECT(estimate.active_parameters < 0.3 * estimate.total_parameters);
  EXPECT(estimate.memory_bytes >= estimate.weights_bytes && estimate.weights_bytes > 0);
  EXPECT(estimate.flops >= 2.0 * 64 * 2 * 3 * 512 * 1024);
  EXPECT(strlen(estimate.bottleneck) > 0 && strlen(estimate.reason) == 0);
  HardwareAwareMoE_close(moe);
  EXPECT(strcmp(moecast_version(), MOECAST_TEST_VERSION) == 0);
}

static void has_four_factors(void) {
  moecast_predictor* predictor = opened(CPU);
  const moecast_moe_config config = layer();
  moecast_estimate e = MOECAST_ESTIMATE_INIT;
  double sum;
  EXPECT(moecast_estimate_latency(predictor, &config, &e) == MOECAST_OK);
  sum = e.all_to_all_s + e.memory_bandwidth_s + e.routing_overhead_s + e.compute_s;
  EXPECT(e.all_to_all_s == 0 && e.expert_parallel_efficiency_ratio == 1);
  EXPECT(sum > 0 && sum <= e.latency_s * (1 + 1e-9));
  moecast_close(predictor);
}

static void removing_a_factor(const char* hw, int32_t ranks, const char* load) {
  static const uint32_t factors[] = {MOECAST_WITHOUT_ALL_TO_ALL,       MOECAST_WITHOUT_MEMORY_BANDWIDTH,
                                     MOECAST_WITHOUT_ROUTING_OVERHEAD, MOECAST_WITHOUT_EXPERT_PARALLEL_EFFICIENCY,
                                     MOECAST_WITHOUT_IMBALANCE,        31};
  moecast_predictor* predictor = opened(hw);
  moecast_moe_config config = layer();
  moecast_estimate whole = MOECAST_ESTIMATE_INIT;
  size_t i;
  if (ranks > 1) {
    config.hidden = 2048, config.width = 768, config.experts = 128, config.top_k = 8, config.tokens = 512;
    config.ep = config.dp = ranks;
  }
  config.load = load;
  EXPECT(moecast_estimate_latency(predictor, &config, &whole) == MOECAST_OK);
  EXPECT(whole.outcome == MOECAST_OUTCOME_OK);
  EXPECT(whole.expert_parallel_efficiency_ratio > 0 && whole.expert_parallel_efficiency_ratio <= 1);
  EXPECT(ranks == 1 ? whole.all_to_all_s == 0 : whole.all_to_all_s > 0);
  for (i = 0; i < sizeof factors / sizeof *factors; ++i) {
    moecast_estimate less = MOECAST_ESTIMATE_INIT;
    config.without = factors[i];
    EXPECT(moecast_estimate_latency(predictor, &config, &less) == MOECAST_OK);
    if (!(less.latency_s <= whole.latency_s)) {
      fprintf(stderr, "%s without %u: %g s, with it %g s\n", hw, (unsigned)factors[i], less.latency_s, whole.latency_s);
      ++failures;
    }
    if (factors[i] == MOECAST_WITHOUT_ROUTING_OVERHEAD) EXPECT(less.routing_overhead_s == 0);
    if (factors[i] == MOECAST_WITHOUT_ALL_TO_ALL) EXPECT(less.all_to_all_s == 0);
    if (factors[i] == MOECAST_WITHOUT_MEMORY_BANDWIDTH) EXPECT(less.memory_bandwidth_s == 0);
  }
  moecast_close(predictor);
}

static void removing_a_factor_never_slows(void) {
  removing_a_factor(CPU, 1, NULL);
  removing_a_factor(CPU, 1, "zipf:1.2");
  removing_a_factor(GPU, 8, NULL);
}

static void refuses_wrong_machines(void) {
  moecast_predictor* predictor = (moecast_predictor*)&failures;
  moecast_settings settings = MOECAST_SETTINGS_INIT;
  expect_refused(moecast_open("h200-sxn", NULL, &predictor), MOECAST_USAGE, "did you mean \"h200-sxm\"?");
  EXPECT(predictor == NULL);
  expect_refused(moecast_open("/nowhere", NULL, &predictor), MOECAST_INPUT, "/nowhere: no such profile folder");
  expect_refused(moecast_open("\xff\xfe", NULL, &predictor), MOECAST_USAGE, "is no known profile");
  expect_refused(moecast_open(NULL, NULL, &predictor), MOECAST_USAGE, "hw: is NULL");
  expect_refused(moecast_open(CPU, NULL, NULL), MOECAST_USAGE, "predictor: is NULL");
  settings.dtype = "bf17";
  expect_refused(moecast_open(CPU, &settings, &predictor), MOECAST_USAGE, "dtype: \"bf17\" is not a number format");
  settings.dtype = NULL;
  settings.backend = "onedn";
  expect_refused(moecast_open(CPU, &settings, &predictor), MOECAST_USAGE, "backend: \"onedn\" is not in the profile");
  settings.backend = NULL;
  settings.threads = -1;
  expect_refused(moecast_open(CPU, &settings, &predictor), MOECAST_USAGE, "threads: -1 is out of range");
  settings.threads = 2;
  expect_refused(moecast_open(GPU, &settings, &predictor), MOECAST_USAGE, "threads: are those of a CPU");
  settings.threads = 0;
  settings.data = "/nowhere";
  expect_refused(moecast_open(CPU, &settings, &predictor), MOECAST_USAGE, "data: \"/nowhere\" holds no data");
  settings.data = NULL;
  settings.struct_size = 8;
  expect_refused(moecast_open(CPU, &settings, &predictor), MOECAST_USAGE, "settings.struct_size: is 8");
  settings.struct_size = sizeof settings + 8;
  expect_refused(moecast_open(CPU, &settings, &predictor), MOECAST_USAGE, "the header is newer than the library");
  moecast_close(NULL);
  moecast_free(NULL);
}

/* Each field out of its range, one after another. */
static void refuses_wrong_layers(void) {
  static const int64_t rows[] = {1, 2, 3};
  moecast_predictor* predictor = opened(CPU);
  moecast_estimate e = MOECAST_ESTIMATE_INIT;
  moecast_moe_config c;
#define REFUSED(assignment, said) \
  c = layer();                    \
  assignment;                     \
  expect_refused(moecast_estimate_latency(predictor, &c, &e), MOECAST_USAGE, said)
  REFUSED(c.hidden = 0, "hidden: is 0, out of range (expected 1 to 16777216)");
  REFUSED(c.hidden = INT64_MIN, "hidden");
  REFUSED(c.width = INT64_MAX, "width");
  REFUSED(c.experts = 65537, "experts");
  REFUSED(c.top_k = 9, "top_k: is 9, but there are only 8 experts");
  REFUSED(c.tokens = -1, "tokens");
  REFUSED(c.shared_experts = -1, "shared_experts");
  REFUSED(c.gated = 2, "gated");
  REFUSED(c.pad = -1, "pad");
  REFUSED(c.pad = 1, "pad: means nothing without a capacity");
  REFUSED(c.overflow = "drop", "overflow: means nothing without a capacity");
  REFUSED(c.capacity_factor = NAN, "capacity_factor: is nan");
  REFUSED(c.capacity_factor = HUGE_VAL, "capacity_factor");
  REFUSED(c.capacity_factor = -1, "capacity_factor");
  REFUSED((c.capacity_factor = 1, c.overflow = "dropp"), "did you mean \"drop\"?");
  REFUSED(c.activation = "silly", "activation: \"silly\" is not known");
  REFUSED(c.load = "", "load");
  REFUSED(c.load = "zipf:nan", "load");
  REFUSED(c.load = "zippf:1", "did you mean \"zipf\"?");
  REFUSED((c.rows = rows, c.rows_count = 3), "rows_count: is 3 (expected as many as experts: 8)");
  REFUSED((c.rows = rows, c.rows_count = (size_t)-1), "rows_count");
  REFUSED(c.rows_count = 8, "rows: is NULL");
  REFUSED((c.rows = rows, c.rows_count = 3, c.experts = 3, c.load = "uniform"), "rows: and load exclude each other");
  REFUSED(c.copies = 0, "copies");
  REFUSED(c.tp = 0, "tp");
  REFUSED(c.ep = 3, "ep");
  REFUSED(c.dp = 1 << 30, "dp");
  REFUSED(c.moe_tp = -1, "moe_tp");
  REFUSED(c.without = 32, "without: holds bits that are no factor: 32");
  REFUSED(c.reserved = 1, "reserved");
  REFUSED(c.struct_size = 0, "config.struct_size: is 0");
  REFUSED(e.struct_size = 1, "estimate.struct_size: is 1");
  e.struct_size = sizeof e;
  c = layer();
  expect_refused(moecast_estimate_latency(NULL, &c, &e), MOECAST_USAGE, "predictor: is NULL");
  expect_refused(moecast_estimate_latency(predictor, NULL, &e), MOECAST_USAGE, "config: is NULL");
  expect_refused(moecast_estimate_latency(predictor, &c, NULL), MOECAST_USAGE, "estimate: is NULL");
  expect_refused(moecast_estimate_latency(predictor, &c, NULL), MOECAST_USAGE, "estimate: is NULL");
  /* None of it has written an answer. */
  EXPECT(e.latency_s == 0 && e.total_parameters == 0);
  moecast_close(predictor);
}

static void refuses_wrong_questions(void) {
  moecast_predictor* predictor = opened(CPU);
  char* answer = (char*)&failures;
  char* deep = malloc(2000001);
#define ASKED(question, status, said) expect_refused(moecast_predict(predictor, question, &answer), status, said)
  ASKED("", MOECAST_INPUT, "question");
  EXPECT(answer == NULL);
  ASKED("{", MOECAST_INPUT, "is not valid JSON");
  ASKED("{} {}", MOECAST_INPUT, "is not valid JSON");
  ASKED("[]", MOECAST_INPUT, "expected an object");
  ASKED("7", MOECAST_INPUT, "expected an object");
  ASKED("{}", MOECAST_USAGE, "architecture: is missing");
  ASKED("{\"architecture\": \"olmoe-1b-7c\"}", MOECAST_USAGE, "did you mean \"olmoe-1b-7b\"?");
  ASKED("{\"architecture\": 7}", MOECAST_INPUT, "question: /architecture: expected a string, found 7");
  ASKED("{\"architecture\": \"/nowhere/config.json\"}", MOECAST_INPUT, "/nowhere/config.json");
  ASKED("{\"architecture\": {}}", MOECAST_INPUT, "architecture");
  ASKED("{\"architecture\": {}, \"hidden\": 8}", MOECAST_USAGE, "exclude each other");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"hidden\": 8}", MOECAST_USAGE, "exclude each other");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"contxt\": 8}", MOECAST_INPUT, "did you mean \"context\"?");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"batch\": 0}", MOECAST_INPUT, "question: /batch: is 0, expected 1 to");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"batch\": \"1-8\"}", MOECAST_INPUT, "expected a whole number");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"batch\": 1e999}", MOECAST_INPUT, "1e999");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"batch\": 1, \"batch\": 2}", MOECAST_INPUT, "stands twice");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"phase\": \"decade\"}", MOECAST_USAGE, "did you mean \"decode\"?");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"prompt\": 8}", MOECAST_USAGE, "prompt: means nothing in this phase");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"without\": [\"al-to-all\"]}", MOECAST_USAGE, "\"all-to-all\"?");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"without\": 3}", MOECAST_INPUT, "question: /without: expected");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"rows\": [1]}", MOECAST_USAGE, "rows: are those of a single MoE layer");
  ASKED("{\"architecture\": \"olmoe-1b-7b\", \"threads\": 1}", MOECAST_INPUT, "\"threads\" is not a known field");
  ASKED("{\"hidden\": 8, \"width\": 8, \"experts\": 2, \"top_k\": 3, \"tokens\": 1}", MOECAST_USAGE, "top_k: is 3");
  ASKED("{\"hidden\": 8, \"width\": 8, \"experts\": 2, \"tokens\": 1}", MOECAST_USAGE, "top_k: is missing");
  ASKED("{\"hidden\": 8, \"width\": 8, \"experts\": 2, \"top_k\": 1, \"rows\": 3}", MOECAST_INPUT, "expected an array");
  ASKED("{\"hidden\": 8, \"width\": 8, \"experts\": 2, \"top_k\": 1, \"batch\": 3}", MOECAST_USAGE,
        "batch: means nothing");
  ASKED("{\"architecture\": \"\xff\"}", MOECAST_INPUT, "is not valid JSON");
  memset(deep, '[', 1000000);
  memset(deep + 1000000, ']', 1000000);
  deep[2000000] = '\0';
  ASKED(deep, MOECAST_INPUT, "nested deeper than 200 levels");
  memset(deep, ' ', 2000000);
  ASKED(deep, MOECAST_INPUT, "is not valid JSON");
  free(deep);
  ASKED(NULL, MOECAST_USAGE, "question_json: is NULL");
  expect_refused(moecast_predict(NULL, "{}", &answer), MOECAST_USAGE, "predictor: is NULL");
  expect_refused(moecast_predict(predictor, "{}", NULL), MOECAST_USAGE, "answer_json: is NULL");
  EXPECT(answer == NULL);
  moecast_close(predictor);
}

/* What does not fit, or was never measured, is an answer. */
static void answers_what_has_no_latency(void) {
  moecast_predictor* predictor = opened(CPU);
  moecast_moe_config config = layer();
  moecast_estimate e = MOECAST_ESTIMATE_INIT;
  config.hidden = config.width = 1 << 24;
  config.experts = 65536;
  EXPECT(moecast_estimate_latency(predictor, &config, &e) == MOECAST_OK);
  EXPECT(e.outcome == MOECAST_OUTCOME_DOES_NOT_FIT);
  EXPECT(isnan(e.latency_s) && isnan(e.latency_low_s) && isnan(e.compute_s) && isnan(e.throughput_tokens_per_s));
  EXPECT(isnan(e.expert_parallel_efficiency_ratio));
  EXPECT(e.memory_bytes > e.memory_capacity_bytes && e.memory_capacity_bytes > 0);
  EXPECT(strstr(e.reason, "too much") != NULL && strlen(e.bottleneck) == 0);
  config.without = 31;
  EXPECT(moecast_estimate_latency(predictor, &config, &e) == MOECAST_OK);
  EXPECT(e.outcome == MOECAST_OUTCOME_DOES_NOT_FIT);
  /* A CPU's ranks were never measured. */
  config = layer();
  config.ep = config.dp = 2;
  EXPECT(moecast_estimate_latency(predictor, &config, &e) == MOECAST_OK);
  EXPECT(e.outcome == MOECAST_OUTCOME_OUTSIDE_RANGE && strlen(e.reason) > 0);
  moecast_close(predictor);
}

/* Nobody but moecast_* is seen by those who load the library. */
static void exports_its_functions_only(void) {
  static const char* const shown[] = {"moecast_version",         "moecast_last_error", "moecast_open",
                                      "moecast_close",           "moecast_predict",    "moecast_free",
                                      "moecast_estimate_latency"};
  char line[4096];
  size_t seen = 0;
  size_t i;
  FILE* symbols = popen("nm -D --defined-only --format=posix " MOECAST_TEST_LIBRARY, "r");
  EXPECT(symbols != NULL);
  while (symbols != NULL && fgets(line, sizeof line, symbols) != NULL) {
    line[strcspn(line, " \n")] = '\0';
    ++seen;
    for (i = 0; i < sizeof shown / sizeof *shown && strcmp(line, shown[i]) != 0; ++i) {
    }
    if (i == sizeof shown / sizeof *shown) {
      fprintf(stderr, "%s is exported\n", line);
      ++failures;
    }
  }
  EXPECT(symbols == NULL || pclose(symbols) == 0);
  EXPECT(seen == sizeof shown / sizeof *shown);
}

/* Programs that ask do not load the kernels that profiling measures, nor their threads. */
static void needs_no_kernels(void) {
  static const char* const kernels[] = {"openblas", "dnnl", "gomp", "benchmark", "simgrid", "mpi"};
  char line[4096];
  size_t needed = 0;
  size_t i;
  FILE* entries = popen("readelf -d " MOECAST_TEST_LIBRARY, "r");
  EXPECT(entries != NULL);
  while (entries != NULL && fgets(line, sizeof line, entries) != NULL) {
    if (strstr(line, "(NEEDED)") == NULL) continue;
    ++needed;
    for (i = 0; i < sizeof kernels / sizeof *kernels; ++i) {
      if (strstr(line, kernels[i]) == NULL) continue;
      fprintf(stderr, "needs %s", line);
      ++failures;
    }
  }
  EXPECT(entries == NULL || pclose(entries) == 0);
  EXPECT(needed > 0);
}

int main(int argc, char** argv) {
  static const struct {
    const char* name;
    void (*run)(void);
  } checks[] = {{"EstimatesLatencyByItsName_A24", estimates_latency},
                {"HasFourFactorsAndCompute_A25", has_four_factors},
                {"RemovingAFactorNeverSlows_A25", removing_a_factor_never_slows},
                {"RefusesWrongMachines", refuses_wrong_machines},
                {"RefusesWrongLayers", refuses_wrong_layers},
                {"RefusesWrongQuestions", refuses_wrong_questions},
                {"AnswersWhatHasNoLatency", answers_what_has_no_latency},
                {"ExportsItsFunctionsOnly", exports_its_functions_only},
                {"NeedsNoKernels", needs_no_kernels}};
  size_t i;
  for (i = 0; i < sizeof checks / sizeof *checks; ++i) {
    if (argc != 2 || strcmp(argv[1], checks[i].name) != 0) continue;
    EXPECT(strcmp(moecast_last_error(), "") == 0);
    checks[i].run();
    return failures == 0 ? 0 : 1;
  }
  fprintf(stderr, "no such check\n");
  return 2;
}
