#include "hwprofiles/layers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

using testing::HasSubstr;

ExecutedLayer some_layer() {
  ExecutedLayer layer;
  layer.stratum = "onednn fp32, 2 threads";
  layer.architecture.name = "a layer";
  layer.architecture.hidden = 64;
  MoeBlock moe;
  moe.experts.resize(1);
  moe.experts[0].count = 4;
  moe.experts[0].expert.width = 32;
  moe.router.top_k = 2;
  layer.architecture.decoder.resize(1);
  layer.architecture.decoder[0].blocks.emplace_back(moe);
  layer.deployment.backend = "onednn";
  layer.deployment.dtype = DType::bf16;
  layer.deployment.threads = 2;
  layer.deployment.strategy = KernelStrategy::per_expert_loop;
  layer.workload.phase = Phase::prefill;
  layer.workload.batch = 3;
  layer.workload.prompt = 7;
  layer.workload.copies = 5;
  layer.workload.load = {LoadKind::zipf, 1.5, {}, 9};
  layer.workload.rows_per_expert = {20, 12, 10, 0};
  layer.latency = Seconds(2e-3);
  layer.low = Seconds(1.9e-3);
  layer.high = Seconds(2.1e-3);
  layer.samples = 40;
  layer.preempted = 2;
  layer.round_s = {1.95e-3, 0.1 + 0.2};
  return layer;
}

TEST(ExecutedLayers, ReadBackAsTheyWereWritten) {
  const std::string folder = testing::TempDir() + "/moecast-layers-" + std::to_string(getpid());
  std::filesystem::remove_all(folder);
  EXPECT_TRUE(read_layers(folder).empty());
  ExecutedLayer other = some_layer();
  other.workload.load = {LoadKind::histogram, 0, {3, 1, 1, 0}, 0};
  other.workload.rows_per_expert.clear();
  write_layers(folder, {some_layer(), other});
  const std::vector<ExecutedLayer> back = read_layers(folder);
  ASSERT_EQ(back.size(), 2U);
  EXPECT_EQ(layers_text(back), layers_text({some_layer(), other}));
  const ExecutedLayer& first = back[0];
  EXPECT_EQ(first.stratum, "onednn fp32, 2 threads");
  EXPECT_EQ(first.architecture, some_layer().architecture);
  EXPECT_EQ(first.deployment.strategy, KernelStrategy::per_expert_loop);
  EXPECT_EQ(first.deployment.dtype, DType::bf16);
  EXPECT_EQ(first.workload.phase, Phase::prefill);
  EXPECT_EQ(first.workload.rows_per_expert, some_layer().workload.rows_per_expert);
  EXPECT_EQ(first.workload.load.kind, LoadKind::zipf);
  EXPECT_EQ(first.workload.load.seed, 9U);
  EXPECT_EQ(first.round_s, some_layer().round_s);
  EXPECT_EQ(first.preempted, 2);
  EXPECT_EQ(back[1].workload.load.histogram, other.workload.load.histogram);
}

/// What is said of one layer in which `from` became `to`.
std::string said(const std::string& from, const std::string& to) {
  std::string text = layers_text({some_layer(), some_layer()});
  const std::size_t at = text.rfind(from);
  if (at == std::string::npos) return "\"" + from + "\" is not in the text";
  text.replace(at, from.size(), to);
  try {
    static_cast<void>(parse_layers_text(text, "layers"));
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ExecutedLayers, ThatAreWrongAreRefusedWithLineAndField) {
  EXPECT_THAT(said("\"stratum\"", "\"stratums\""), HasSubstr("layers: line 2: \"stratums\" is not a known field"));
  EXPECT_THAT(said("\"zipf\"", "\"ziph\""), HasSubstr("/load/kind: \"ziph\" is not a load"));
  EXPECT_THAT(said("\"prefill\"", "\"warmup\""), HasSubstr("/phase"));
  EXPECT_THAT(said("\"latency_s\":0.002", "\"latency_s\":0.0"), HasSubstr("/latency_s"));
  EXPECT_THAT(said("\"low_s\":0.0019", "\"low_s\":0.0021"), HasSubstr("/low_s"));
  EXPECT_THAT(said("\"high_s\":0.0021", "\"high_s\":0.0019"), HasSubstr("/high_s"));
  EXPECT_THAT(said("\"preempted\":2", "\"preempted\":41"), HasSubstr("/preempted"));
  EXPECT_THAT(said("\"batch\":3", "\"batch\":0"), HasSubstr("/batch"));
  EXPECT_THAT(said("[20,12,10,0]", "[20,12,-1,0]"), HasSubstr("/rows_per_expert/2"));
  EXPECT_THAT(said("\"top_k\":2", "\"top_k\":-2"), HasSubstr("/architecture/"));
  EXPECT_THAT(said("}\n", "\n"), HasSubstr("is not valid JSON"));
}

}  // namespace
}  // namespace moecast
