#include "models/plan/moe_system.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <variant>

#include "models/core/error.h"

namespace moecast {
namespace {

const std::string kFolder = MOECAST_SOURCE_DIR "/models/systems";

TEST(MoeSystem, EveryShippedOneIsReadAndSaysWhereItIsFrom_C23) {
  int found = 0;
  for (const auto& file : std::filesystem::directory_iterator(kFolder)) {
    const MoeSystem system = read_moe_system(kFolder, file.path().stem().string());
    EXPECT_EQ(system.name, file.path().stem());
    EXPECT_GT(system.source.size(), 20U);
    ++found;
  }
  EXPECT_GE(found, 8);
}

TEST(MoeSystem, GivesItsCapacityToExpertsThatHaveNone_C23) {
  Architecture model;
  MoeBlock without;
  MoeBlock own;
  own.capacity.eval_factor = 7;
  MoeBlock by_experts;
  by_experts.router.kind = RouterKind::expert_choice;
  model.decoder.push_back({{without, own, by_experts}});
  const Architecture run = run_by(read_moe_system(kFolder, "fairseq-moe"), model);
  const std::vector<Block>& blocks = run.decoder.front().blocks;
  const CapacitySpec given = std::get<MoeBlock>(blocks[0]).capacity;
  EXPECT_EQ(given.eval_factor, 2.0);
  EXPECT_FALSE(given.factor_of_top_k);
  EXPECT_TRUE(given.pad);
  EXPECT_EQ(std::get<MoeBlock>(blocks[1]).capacity.eval_factor, 7.0);
  EXPECT_FALSE(std::get<MoeBlock>(blocks[2]).capacity.limited());
  EXPECT_EQ(run_by(read_moe_system(kFolder, "megablocks"), model), model) << "drops nothing";
}

TEST(MoeSystem, SaysWhatIsWrongInAFile) {
  const auto parse = [](const std::string& fields) {
    return parse_moe_system(R"({"schema_version": 1, "name": "x", "source": "y")" + fields + "}", "x.json");
  };
  EXPECT_EQ(parse("").chunks, 1);
  EXPECT_THROW(parse(R"(, "chunk": 2)"), InputError);
  EXPECT_THROW(parse(R"(, "chunks": 0)"), InputError);
  EXPECT_THROW(parse(R"(, "row_block": -1)"), InputError);
  EXPECT_THROW(parse(R"(, "capacity": {"factor": 1})"), InputError);
  EXPECT_THROW(parse(R"(, "capacity": {"factor": 1, "of": "rows", "minimum": 0, "overflow": "drop", "pad": true})"),
               InputError);
  EXPECT_THROW(parse_moe_system("[]", "x.json"), InputError);
  EXPECT_THROW(read_moe_system(kFolder, "fastmo"), InputError);
}

}  // namespace
}  // namespace moecast
