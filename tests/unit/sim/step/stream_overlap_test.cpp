#include "sim/step/stream_overlap.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/core/error.h"
#include "models/core/json.h"
#include "models/plan/engine.h"
#include "sim/step/step_model.h"

namespace moecast {
namespace {

constexpr std::size_t kShared = static_cast<std::size_t>(StepGroup::shared);
constexpr std::size_t kRouted = static_cast<std::size_t>(StepGroup::experts);

/// Ten layers: routed experts of 10 us, shared ones of `shared_s`, so many bytes each.
StepOperators layers(double shared_s, double routed_bytes, double shared_bytes, double up_to) {
  StepOperators operators;
  operators.shared_stream_rows = up_to;
  const auto add = [&](StepGroup group, double seconds, double bytes) {
    operators.operators.push_back({"made up", "made up", group, 10, [=](const StepShape&) { return seconds; },
                                   [=](const StepShape&) { return StepWork{bytes, 0}; }});
  };
  add(StepGroup::experts, 10e-6, routed_bytes);
  add(StepGroup::shared, shared_s, shared_bytes);
  return operators;
}

double exposed(const StepOperators& operators, double rows) {
  StepShape shape;
  shape.rows = rows;
  return exposed_shared(operators, shape, times_one_after_the_other(operators, shape));
}

TEST(StreamOverlap, TheLongerHidesTheShorterWhereMemoryIsFree) {
  EXPECT_DOUBLE_EQ(exposed(layers(4e-6, 1e6, 0, 256), 64), 0) << "no bytes, hidden whole";
  EXPECT_DOUBLE_EQ(exposed(layers(15e-6, 1e6, 0, 256), 64), 1.0 / 3) << "5 of 15 us stick out";
  EXPECT_DOUBLE_EQ(exposed(layers(4e-6, 1e6, 1e3, 256), 257), 1) << "above the threshold";
  EXPECT_DOUBLE_EQ(exposed(layers(4e-6, 1e6, 1e3, 0), 1), 1) << "no stream";
}

TEST(StreamOverlap, BytesOfBothPassTheSameMemory) {
  // Both at 1 TB/s: nothing is gained. At half of it the shared ones reach the bandwidth of the routed ones.
  EXPECT_NEAR(exposed(layers(4e-6, 10e6, 4e6, 256), 64), 1, 1e-12);
  EXPECT_NEAR(exposed(layers(4e-6, 10e6, 2e6, 256), 64), 0.5, 1e-12);
}

TEST(StreamOverlap, StepsAreNeverLongerWithAStream) {
  const StepOperators plain = layers(4e-6, 10e6, 2e6, 0);
  const StepOperators beside = layers(4e-6, 10e6, 2e6, 256);
  for (const double rows : {1.0, 256.0, 300.0}) {
    StepShape shape;
    shape.rows = rows;
    const StepTimes one = StepModel(plain, {}, {}, {}).times(shape);
    const StepTimes two = StepModel(beside, {}, {}, {}).times(shape);
    EXPECT_EQ(one[kRouted], two[kRouted]);
    EXPECT_EQ(two[kShared] < one[kShared], rows <= 256);
  }
}

TEST(StreamOverlap, IsWhatTheEnginesFileSays) {
  const std::string file = std::string(MOECAST_SOURCE_DIR) + "/models/plan/engines/vllm.json";
  Json json = read_json_file(file);
  EXPECT_EQ(parse_engine_text(dump_json_line(json), file).shared_stream_rows, 0) << "nothing is said";
  json["streams"] = {{"shared_experts_up_to_rows", 256}, {"source", "made up"}};
  EXPECT_EQ(parse_engine_text(dump_json_line(json), file).shared_stream_rows, 256);
  json["streams"]["shared_experts_up_to_rows"] = -1;
  EXPECT_THROW(parse_engine_text(dump_json_line(json), file), InputError);
  json["streams"] = {{"shared_expert", 256}};
  EXPECT_THROW(parse_engine_text(dump_json_line(json), file), InputError);
}

}  // namespace
}  // namespace moecast
