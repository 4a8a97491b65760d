#include "models/architecture/zoo.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <set>

#include "models/architecture/accounting.h"
#include "models/architecture/reader.h"
#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

namespace fs = std::filesystem;

const std::string kZoo = MOECAST_SOURCE_DIR "/models/zoo";

/// Unit of the last digit that was published: 1e9 for "30B", 1e8 for "12.9B", 1e11 for "1T".
double last_digit(double published) {
  const double most = published < 1e12 ? 1e9 : 1e11;
  double unit = 1;
  while (unit < most && std::abs(std::remainder(published, unit * 10)) < 1e-6 * unit) unit *= 10;
  return unit;
}

/// Within 1 %, or rounded or cut off to the digits that were published ("30B" of 30.5 B, "3B" of 3.9 B).
bool matches(double count, double published) {
  const double unit = last_digit(published);
  if (std::abs(count - published) <= std::max(0.01 * published, unit / 2)) return true;
  return count >= published && count < published + unit;
}

/// A published figure that counts something else than all weights, and how.
struct Exception {
  int embeddings_left_out = 0;  ///< of input embedding and head
  std::string reason;
};

const std::map<std::string, Exception> kActiveDiffers{
    {"gpt-oss-120b", {1, "one of embedding and head is left out"}},
    {"glm-4.5", {2, "embedding and head are left out"}},
    {"glm-4.5-air", {2, "embedding and head are left out"}},
    {"minimax-text-01", {2, "embedding and head are left out"}},
    {"minimax-m1", {2, "embedding and head are left out"}},
    {"deepseek-v2-lite", {0, "2.4 B lies between the count with (2.66) and without (2.24) embedding and head"}},
    {"grok-1", {0, "stated without arithmetic; 2 of 8 experts of the code's widths make 83.8 B"}},
};
const std::map<std::string, Exception> kTotalDiffers{
    {"gshard-600b", {0, "a round name: 18 layers of 2048 experts are 618 B"}},
    {"gemma-4-26b-a4b", {0, "the vision tower is left out"}},
    {"nemotron-3-nano-30b-a3b", {0, "a round name of 31.6 B"}},
    {"openmoe-8b", {0, "a name that leaves out embeddings, of which one makes 0.5 B, and more"}},
};

void compare(const Architecture& model, double count, std::optional<double> published,
             const std::map<std::string, Exception>& exceptions) {
  if (!published) return;
  const auto found = exceptions.find(model.name);
  if (found == exceptions.end()) {
    EXPECT_TRUE(matches(count, *published)) << model.name << ": " << count << ", published " << *published;
    return;
  }
  EXPECT_FALSE(matches(count, *published)) << model.name << " is no exception any more: " << found->second.reason;
  const double embedding = static_cast<double>(model.vocabulary * model.hidden);
  const double same = count - found->second.embeddings_left_out * embedding;
  if (found->second.embeddings_left_out > 0) {
    EXPECT_TRUE(matches(same, *published)) << model.name << ": " << same << ", published " << *published;
  } else {
    EXPECT_NEAR(count, *published, 0.15 * *published) << model.name;
  }
}

TEST(Zoo, TotalsMatchWhatWasPublished) {
  std::size_t compared = 0;
  for (const std::string& name : zoo_names(kZoo)) {
    const Architecture model = load_zoo(kZoo, name);
    EXPECT_EQ(model.name, name);
    EXPECT_FALSE(model.source.empty()) << name;
    const ParameterCount count = count_parameters(model);
    compare(model, count.total, model.published.total, kTotalDiffers);
    compare(model, count.active, model.published.active, kActiveDiffers);
    compared += model.published.total.has_value() ? 1U : 0U;
  }
  EXPECT_GE(compared, 35U);
}

/// Zoo name of a line of facts; as tools/dev/make_zoo.py makes it.
std::string short_name(std::string name) {
  for (const auto& [from, to] :
       std::vector<std::pair<std::string, std::string>>{{R"(\(.*\)|NVIDIA-|-BF16|-FP8|-v0\.1|-Instruct|/64E)", ""},
                                                        {"granite-3.x", "granite-3"},
                                                        {" +$", ""},
                                                        {"-(17B-16E|17B-128E)$", ""},
                                                        {"[ /]+", "-"}}) {
    name = std::regex_replace(name, std::regex(from), to);
  }
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name;
}

TEST(Zoo, CoversTheKnownModelsAndTheirComputedTotals) {
  const char* set = std::getenv("MOECAST_MEASUREMENTS");
  const fs::path root =
      set != nullptr ? fs::path(set) : fs::path(MOECAST_SOURCE_DIR).parent_path() / "shared" / "measurements";
  const fs::path facts = root / "zoo" / "models.jsonl";
  if (!fs::exists(facts)) GTEST_SKIP() << "no " << facts;
  // Nobody published what the layers of the first are; the supernet is a space, of which the zoo holds one point.
  const std::set<std::string> absent{"st-moe-32b", "automoe-supernet"};
  int compared = 0;
  read_lines(facts.string(), [&](std::uint64_t /*number*/, std::string_view line) {
    const Json row = Json::parse(line);
    const std::string name = short_name(row["name"].get<std::string>());
    if (absent.contains(name)) return;
    ParameterCount count;
    ASSERT_NO_THROW(count = count_parameters(load_zoo(kZoo, name))) << name;
    if (row["computed_total_params"].is_null()) return;
    const auto total = row["computed_total_params"].get<double>();
    EXPECT_NEAR(count.total, total, 0.01 * total) << name;
    const auto active = row["computed_active_params"].get<double>();
    // The facts leave the sparse indexer out and count the biases of all experts as active.
    EXPECT_NEAR(count.active, active,
                (name == "deepseek-v3.2"   ? 0.03
                 : name == "switch-c-2048" ? 0.09
                                           : 0.01) *
                    active)
        << name;
    ++compared;
  });
  EXPECT_GE(compared, 45);
}

TEST(Zoo, UnknownNamesAreRefusedWithTheNearest) {
  EXPECT_GE(zoo_names(kZoo).size(), 66U);
  try {
    load_zoo(kZoo, "mixtral-8x7");
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_EQ(error.hint(), "did you mean \"mixtral-8x7b\"?");
  }
  EXPECT_TRUE(zoo_names("/no/such/folder").empty());
}

TEST(Zoo, MixtralNeeds93GigabytesInBf16_C11) {
  const ParameterCount count = count_parameters(load_zoo(kZoo, "mixtral-8x7b"));
  EXPECT_EQ(count.total, 46'702'792'704.0);
  const double gigabytes = count.total * bytes_per_weight(DType::bf16) / 1e9;
  EXPECT_NEAR(gigabytes, 93.4, 0.05);
  EXPECT_GT(gigabytes, 80);   // not on one 80 GB part
  EXPECT_LT(gigabytes, 141);  // but on one of 141 GB
  EXPECT_LT(count.total * bytes_per_weight(DType::int4) / 1e9, 32);
}

}  // namespace
}  // namespace moecast
