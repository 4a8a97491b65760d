// What replicas of attention exchange for their experts, and how many calls the host makes of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "models/plan/engine.h"
#include "sim/step/gpu_predictor.h"
#include "sim/step/step_operators.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;
const std::string kEngines = kRoot + "/models/plan/engines";
constexpr double kLayers = 40;

StepOperators operators_of(int tp, int dp, int ep, const EngineSpec& engine) {
  static const KernelCalibration kernels = read_kernel_calibration(kRoot + "/hwprofiles/b300-sxm", "b300-sxm");
  static const Architecture qwen = load_zoo(kRoot + "/models/zoo", "qwen3.6-35b-a3b");
  Deployment d;
  d.tp = tp;
  d.dp = dp;
  d.ep = ep;
  d.backend = "vllm";
  return make_step_operators(qwen, d, engine, kernels);
}

double count_of(const StepOperators& all, const std::string& name) {
  double count = 0;
  for (const StepOperator& op : all.operators) count += op.name == name ? op.count : 0;
  return count;
}

TEST(ReplicaExchange, IsOneCallATensorAndReplicaWhereRowsDiffer) {
  const EngineSpec vllm = read_engine(kEngines, "vllm");
  EngineSpec plain = vllm;
  plain.replica_tensors = 1;
  plain.call_a_replica = false;
  // One agreement a step; a gather and a scatter a layer.
  EXPECT_EQ(operators_of(1, 4, 4, plain).collectives, 1 + 2 * kLayers);
  // Rows and scores gathered, results scattered, each by four calls.
  EXPECT_EQ(operators_of(1, 4, 4, vllm).collectives, 1 + 3 * 4 * kLayers);
  EXPECT_EQ(operators_of(1, 1, 1, vllm).collectives, 0);
}

TEST(ReplicaExchange, TensorParallelRanksTakePartsOfTheRows) {
  const EngineSpec vllm = read_engine(kEngines, "vllm");
  const StepOperators split = operators_of(2, 2, 4, vllm);
  EXPECT_EQ(count_of(split, "all_reduce"), kLayers + 1) << "of attention, of the embedding";
  EXPECT_EQ(count_of(split, "all_gather"), kLayers);
  EXPECT_EQ(count_of(split, "reduce_scatter"), kLayers);
  EXPECT_EQ(count_of(split, "experts.all_gather"), kLayers);
  const StepOperators sliced = operators_of(2, 2, 1, vllm);  // every rank has a part of every expert
  EXPECT_EQ(count_of(sliced, "all_reduce"), 2 * kLayers + 1);
  EXPECT_EQ(count_of(sliced, "experts.all_gather"), 0);
  EXPECT_EQ(count_of(operators_of(2, 2, 4, read_engine(kEngines, "sglang")), "experts.all_gather"), 0);
}

TEST(ReplicaExchange, AFileThatSaysNothingMeansOneOfEach) {
  const std::string file = kEngines + "/vllm.json";
  Json json = read_json_file(file);
  json["collectives"].erase("replica_exchange");
  const EngineSpec plain = parse_engine_text(dump_json_line(json), file);
  EXPECT_EQ(plain.replica_tensors, 1);
  EXPECT_FALSE(plain.call_a_replica);
  EXPECT_FALSE(plain.split_rows_to_experts);
  json["collectives"]["replica_exchange"] = {{"tensors", 0}, {"call_a_replica", true}, {"split_rows", false}};
  EXPECT_THROW(parse_engine_text(dump_json_line(json), file), InputError);
  json["collectives"]["replica_exchange"] = {{"tensors", 1}, {"call_a_replica", true}, {"splitrows", false}};
  EXPECT_THROW(parse_engine_text(dump_json_line(json), file), InputError);
}

}  // namespace
}  // namespace moecast
