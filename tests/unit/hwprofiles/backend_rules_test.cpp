// Which kernel a framework picks: what ships agrees with the tables beside it, and files that lie are refused.
#include "hwprofiles/backend_rules.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "hwprofiles/kernel_samples.h"
#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

const std::string kProfiles = MOECAST_SOURCE_DIR "/hwprofiles/";

std::string file_of(const std::string& rules) {
  return R"({"schema_version":1,"framework":"vllm","rules":[)" + rules + "]}";
}

std::string rule_of(const std::string& what) {
  return R"({"operator":"gemm","formats":["fp8"],)" + what + R"(,"rows":4,"agree":4,"source":"x"})";
}

constexpr const char* kGood = R"("kernel":"a","origin":"measured")";

std::string refusal(const std::string& text) {
  try {
    static_cast<void>(parse_backend_rules_text(text, "vllm.json"));
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

TEST(BackendRules, WhatShipsAgreesWithTheRowsThatItCounts) {
  int counted = 0;
  for (const char* machine : {"a100-sxm", "h100-sxm", "h200-sxm", "b200-sxm", "b300-sxm", "l40s"}) {
    const std::vector<BackendRules> backends = read_backend_rules(kProfiles + machine);
    ASSERT_FALSE(backends.empty()) << machine;
    std::map<const KernelRule*, std::pair<std::int64_t, std::int64_t>> seen;  // rows, and those that agree
    std::vector<double> row;
    for (const KernelSamples& samples : read_kernel_samples(kProfiles + machine)) {
      const KernelKey& key = samples.key;
      for (std::size_t i = 0; i < samples.size(); ++i) {
        samples.row(i, row);
        const KernelRule* rule = find_kernel_rule(backends, key.framework, key.layout, key.dtype, row);
        if (rule == nullptr) continue;
        auto& [rows, agree] = seen[rule];
        ++rows;
        agree += rule->names(key.kernel) ? 1 : 0;
      }
    }
    for (const BackendRules& backend : backends) {
      for (const KernelRule& rule : backend.rules) {
        EXPECT_EQ(rule.rows, seen[&rule].first) << machine << " " << rule.when_text() << " " << rule.source;
        EXPECT_EQ(rule.agree, seen[&rule].second) << machine << " " << rule.when_text() << " " << rule.source;
        counted += rule.rows > 0 ? 1 : 0;
      }
    }
  }
  EXPECT_GT(counted, 100);
}

TEST(BackendRules, AMachineWithoutTablesClaimsNothingMeasured) {
  for (const BackendRules& backend : read_backend_rules(kProfiles + "gb200")) {
    for (const KernelRule& rule : backend.rules) {
      EXPECT_EQ(rule.origin, Origin::assumed);
      EXPECT_EQ(rule.rows, 0);
      EXPECT_THAT(rule.source, testing::HasSubstr("b200-sxm"));
    }
  }
}

TEST(BackendRules, TheFirstRuleThatHoldsCounts) {
  // Hopper's vLLM in fp8_block: Triton where experts are on one rank, CUTLASS where they are spread.
  const std::vector<BackendRules> h200 = read_backend_rules(kProfiles + "h200-sxm");
  std::vector<double> row{64, 2560, 896, 6, 96, 1, 1, 0, 3};
  const auto kernel = [&](const char* layout, const char* format) {
    const KernelRule* rule = find_kernel_rule(h200, "vllm", layout, format, row);
    return rule == nullptr ? "" : rule->kernels.front();
  };
  EXPECT_EQ(kernel("moe", "fp8_block"), "vllm_fp8moe_triton_tritonexperts");
  row[6] = 8;
  EXPECT_EQ(kernel("moe", "fp8_block"), "vllm_fp8moe_flashinfer_cutlass_flashinferexperts");
  EXPECT_EQ(kernel("moe", "fp3"), "");
  row = {16, 1536, 4096};
  EXPECT_EQ(kernel("gemm", "fp8_block"), "FlashInferFp8BlockScaledMMKernel");
  row = {32, 1536, 4096};
  EXPECT_EQ(kernel("gemm", "fp8_block"), "DeepGemmFp8BlockScaledMMKernel");
  row = {32, 1536, 4100};
  EXPECT_EQ(kernel("gemm", "fp8_block"), "CutlassFp8BlockScaledMMKernel");
  const auto found = std::ranges::find(h200, "vllm", &BackendRules::framework);
  const auto thresholds = found->thresholds("gemm", "fp8_block");
  ASSERT_EQ(thresholds.size(), 1U);
  EXPECT_EQ(thresholds.front().value, 32);
}

TEST(BackendRules, WhatWasReadIsWrittenBack) {
  for (const char* machine : {"h200-sxm", "b200-sxm", "l40s", "gb200"}) {
    for (const BackendRules& backend : read_backend_rules(kProfiles + machine)) {
      const std::string text = backend_rules_text(backend);
      EXPECT_EQ(backend_rules_text(parse_backend_rules_text(text, "again")), text);
    }
  }
  const std::string odd = file_of(rule_of(
      R"("when":[{"n":{"from":1,"to":1,"multiple_of":3}},{"k":{"not_multiple_of":16}}],"fastest_of":["a","b"],"origin":"assumed")"));
  const std::string text = backend_rules_text(parse_backend_rules_text(odd, "odd"));
  EXPECT_EQ(backend_rules_text(parse_backend_rules_text(text, "again")), text);
  EXPECT_THAT(text, testing::HasSubstr("multiple_of"));
}

TEST(BackendRules, RefusesWhatLiesAndSaysWhere) {
  using testing::HasSubstr;
  EXPECT_EQ(refusal(file_of(rule_of(kGood))), "");
  EXPECT_THAT(refusal(R"({"schema_version":2,"framework":"vllm","rules":[]})"), HasSubstr("/schema_version"));
  EXPECT_THAT(refusal(R"({"schema_version":1,"rules":[]})"), HasSubstr("framework"));
  EXPECT_THAT(refusal(R"({"schema_version":1,"framework":"vllm","rules":{}})"), HasSubstr("/rules"));
  EXPECT_THAT(refusal(file_of(R"({"operator":"gemm"})")), HasSubstr("formats"));
  std::string other = rule_of(kGood);
  other.replace(other.find("gemm"), 4, "gem");
  EXPECT_THAT(refusal(file_of(other)), HasSubstr("/rules/0/operator"));
  const std::string good(kGood);
  EXPECT_THAT(refusal(file_of(rule_of(good + R"(,"when":[])"))), HasSubstr("/rules/0/when"));
  EXPECT_THAT(refusal(file_of(rule_of(good + R"(,"when":[{}])"))), HasSubstr("/rules/0/when/0"));
  EXPECT_THAT(refusal(file_of(rule_of(good + R"(,"when":[{"heads":1}])"))), HasSubstr("heads"));
  EXPECT_THAT(refusal(file_of(rule_of(good + R"(,"when":[{"m":"1"}])"))), HasSubstr("/rules/0/when/0/m"));
  EXPECT_THAT(refusal(file_of(rule_of(good + R"(,"when":[{"m":{}}])"))), HasSubstr("/rules/0/when/0/m"));
  EXPECT_THAT(refusal(file_of(rule_of(good + R"(,"when":[{"m":{"from":9,"to":3}}])"))), HasSubstr("holds no number"));
  EXPECT_THAT(refusal(file_of(rule_of(good + R"(,"when":[{"m":{"multiple_of":0}}])"))), HasSubstr("multiple_of"));
  EXPECT_THAT(refusal(file_of(rule_of(R"("origin":"measured")"))), HasSubstr("names no kernel"));
  EXPECT_THAT(refusal(file_of(rule_of(good + R"(,"fastest_of":["b"])"))), HasSubstr("names no kernel, or twice"));
  EXPECT_THAT(refusal(file_of(rule_of(R"("kernel":"a","origin":"fitted")"))), HasSubstr("/rules/0/origin"));
  EXPECT_THAT(refusal(file_of(rule_of(good + R"(,"why":"x")"))), HasSubstr("why"));
  std::string unproven = rule_of(kGood);
  unproven.replace(unproven.find("\"agree\":4"), 9, "\"agree\":3");
  EXPECT_THAT(refusal(file_of(unproven)), HasSubstr("not every row agrees"));
  unproven.replace(unproven.find("\"agree\":3"), 9, "\"agree\":5");
  EXPECT_THAT(refusal(file_of(unproven)), HasSubstr("/rules/0/agree"));
}

TEST(BackendRules, TunedTilesAreReadAndLiesRefused) {
  using testing::HasSubstr;
  const auto with = [](const std::string& tuned) {
    return R"({"schema_version":1,"framework":"sglang","rules":[],"tuned":[{"operator":"moe","kernel":"a","formats":["x"],)" +
           tuned + R"(,"source":"s"}]})";
  };
  const BackendRules read =
      parse_backend_rules_text(with(R"("small_default":true,"pairs":[[8,1792],[8,2048],[16,1024]])"), "sglang.json");
  EXPECT_TRUE(read.tuned.front().contains(8, 2048));
  EXPECT_FALSE(read.tuned.front().contains(16, 2048));
  EXPECT_EQ(backend_rules_text(parse_backend_rules_text(backend_rules_text(read), "again")), backend_rules_text(read));
  EXPECT_THAT(refusal(with(R"("small_default":true,"pairs":[[16,1024],[8,1792]])")), HasSubstr("/tuned/0/pairs/1"));
  EXPECT_THAT(refusal(with(R"("small_default":true,"pairs":[[8]])")), HasSubstr("is not [experts, width]"));
  EXPECT_THAT(refusal(with(R"("small_default":true,"pairs":[[0,8]])")), HasSubstr("/tuned/0/pairs/0"));
  EXPECT_THAT(refusal(with(R"("small_default":1,"pairs":[])")), HasSubstr("small_default"));
  std::string other = with(R"("small_default":true,"pairs":[])");
  other.replace(other.find("moe"), 3, "gem");
  EXPECT_THAT(refusal(other), HasSubstr("/tuned/0/operator"));
}

TEST(BackendRules, AFileIsNamedAfterItsFramework) {
  const std::string folder = testing::TempDir() + "moecast_backend_rules";
  std::filesystem::create_directories(folder + "/backends");
  EXPECT_TRUE(read_backend_rules(folder).empty());
  write_file_atomically(folder + "/backends/sglang.json", file_of(rule_of(kGood)));
  EXPECT_THROW(static_cast<void>(read_backend_rules(folder)), InputError);
  std::filesystem::remove(folder + "/backends/sglang.json");
  write_file_atomically(folder + "/backends/vllm.json", file_of(rule_of(kGood)));
  EXPECT_EQ(read_backend_rules(folder).size(), 1U);
  EXPECT_TRUE(read_backend_rules(folder + "/none").empty());
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace moecast
