#include "models/plan/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/core/json.h"

namespace moecast {
namespace {

const std::string kFolder = MOECAST_SOURCE_DIR "/models/plan/engines";

TEST(Engine, EveryShippedOneIsReadByItsBackend) {
  for (const char* name : {"vllm", "sglang", "trtllm"}) {
    const EngineSpec engine = read_engine(kFolder, std::string(name) + "-1.2.3");
    EXPECT_EQ(engine.name, name);
    EXPECT_GT(engine.host.layer_kernels_s, 0);
    EXPECT_GT(engine.service.kernel_factor, 0);
    EXPECT_FALSE(engine.host_source.empty());
    EXPECT_EQ(EngineHost::of(engine.host.values()).values(), engine.host.values());
  }
  EXPECT_THROW(read_engine(kFolder, "vlm"), InputError);
}

TEST(Engine, SaysHowItSplitsLayersAndSharesContexts) {
  EXPECT_EQ(read_engine(kFolder, "vllm").pipeline.extra_layers, ExtraLayers::before_last);
  EXPECT_EQ(read_engine(kFolder, "trtllm").pipeline.extra_layers, ExtraLayers::first);
  EXPECT_EQ(read_engine(kFolder, "trtllm").context_exchange, ContextExchange::ring);
  EXPECT_TRUE(read_engine(kFolder, "sglang").deepep_between_nodes);
  EXPECT_FALSE(read_engine(kFolder, "vllm").deepep_between_nodes);
}

TEST(Engine, ConstantsAreInTheirUnits) {
  const std::string file = kFolder + "/vllm.json";
  for (const auto& [group, name] : {std::pair{"host", "wake_s"}, std::pair{"host", "token_bytes"},
                                    std::pair{"service", "layer_s"}, std::pair{"service", "stall_share"}}) {
    Json json = read_json_file(file);
    json[group][name]["unit"] = "us";
    EXPECT_THROW(parse_engine_text(dump_json_line(json), file), InputError) << name;
    json[group][name].erase("unit");
    EXPECT_THROW(parse_engine_text(dump_json_line(json), file), InputError) << name;
  }
}

TEST(Engine, SaysWhichKernelsItFuses) {
  const EngineSpec trtllm = read_engine(kFolder, "trtllm");
  EXPECT_EQ(trtllm.fp8_inputs, Fp8Inputs::quantised_before);
  EXPECT_TRUE(trtllm.all_reduce_norms);
  EXPECT_TRUE(trtllm.shared_expert_kernels.empty());
  const EngineSpec vllm = read_engine(kFolder, "vllm");
  EXPECT_EQ(vllm.fp8_inputs, Fp8Inputs::as_measured);
  EXPECT_FALSE(vllm.all_reduce_norms);
  EXPECT_EQ(read_engine(kFolder, "sglang").shared_expert_kernels, std::vector<std::string>{"sglang_fused_moe_triton"});
  const std::string text = read_text_file(kFolder + "/trtllm.json");
  const auto with = [&](const std::string& word) {
    std::string changed = text;
    changed.replace(changed.find("\"quantised_before\""), 18, word);
    return changed;
  };
  EXPECT_EQ(parse_engine_text(with("\"constant_scales\""), "engine.json").fp8_inputs, Fp8Inputs::constant_scales);
  for (const char* word : {"\"none\"", "true", "[]"}) {
    EXPECT_THROW(parse_engine_text(with(word), "engine.json"), InputError) << word;
  }
  for (const char* kernels : {"\"sglang_fused_moe_triton\"", "[1]", "{}"}) {
    std::string changed = text;
    const std::string norms = "\"all_reduce_norms\": true";
    changed.replace(changed.find(norms), norms.size(), std::string("\"shared_experts_in\": ") + kernels);
    EXPECT_THROW(parse_engine_text(changed, "engine.json"), InputError) << kernels;
  }
}

TEST(Engine, SaysWhoIsAdmittedAndWhetherPromptsShareSteps) {
  const EngineSpec trtllm = read_engine(kFolder, "trtllm");
  EXPECT_TRUE(trtllm.reserves_outputs);
  EXPECT_TRUE(trtllm.caches_free_memory);
  EXPECT_TRUE(trtllm.mixes_prompts);
  EXPECT_FALSE(read_engine(kFolder, "vllm").reserves_outputs);
  EXPECT_FALSE(read_engine(kFolder, "vllm").caches_free_memory);
  EXPECT_FALSE(read_engine(kFolder, "sglang").mixes_prompts);
  std::string text = read_text_file(kFolder + "/trtllm.json");
  text.replace(text.find("\"free_memory\""), 13, "\"all_memory\"");
  EXPECT_THROW(parse_engine_text(text, "engine.json"), InputError);
}

TEST(Engine, SaysWhoseAllReduceRuns) {
  std::string text = read_text_file(kFolder + "/vllm.json");
  EXPECT_EQ(parse_engine_text(text, "engine.json").all_reduce_framework, "");
  const std::string before = "\"tensor_parallel\"";
  text.insert(text.find(before), R"("all_reduce": {"framework": "trtllm", "source": "fused with the norm"}, )");
  EXPECT_EQ(parse_engine_text(text, "engine.json").all_reduce_framework, "trtllm");
}

TEST(Engine, BrokenFilesAreRefusedWithTheirPointer) {
  const std::string good = read_text_file(kFolder + "/vllm.json");
  const auto why = [](std::string text, const std::string& from, const std::string& to) {
    text.replace(text.find(from), from.size(), to);
    try {
      parse_engine_text(text, "engine.json");
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(why(good, "\"prepare_s\"", "\"prepared_s\""), ::testing::HasSubstr("prepare_s"));
  EXPECT_THAT(why(good, "\"schema_version\": 1", "\"schema_version\": 2"), ::testing::HasSubstr("schema_version"));
  EXPECT_THAT(why(good, "\"graph_rows\"", "\"graph_row\""), ::testing::HasSubstr("graph_row"));
  EXPECT_NE(why(good, "\"name\": \"vllm\"", "\"name\": 3"), "accepted");
  EXPECT_THAT(why(good, "\"before_last\"", "\"last\""),
              ::testing::HasSubstr("/pipeline/extra_layers: \"last\" is not known"));
  EXPECT_THAT(why(good, "\"prefill\": \"all_gather\"", "\"prefill\": \"tree\""), ::testing::HasSubstr("tree"));
}

}  // namespace
}  // namespace moecast
