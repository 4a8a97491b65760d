#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/program.h"
#include "tests/support/made_up_kernels.h"

namespace moecast::test {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

/// A table as other tools publish it.
std::string table_of(const KernelSamples& samples) {
  std::ostringstream text;
  text << "kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,"
          "distribution,latency\n";
  for (std::size_t row = 0; row < samples.size(); ++row) {
    text << samples.key.kernel << "," << samples.key.dtype;
    for (std::size_t c = 0; c < 7; ++c) text << "," << samples.columns[c][row];
    text << "," << distribution_text(samples.columns[7][row]) << "," << samples.latency_s[row] * 1e3 << "\n";
  }
  return text.str();
}

/// What all_gather_perf would print on a link of 400 GB/s.
std::string nccl_output(int ranks) {
  std::ostringstream text;
  text << "# Collective test starting: all_gather_perf\n# nThread 1 nGpus " << ranks << " graph: 1\n";
  for (int rank = 0; rank < ranks; ++rank) text << "#  Rank  " << rank << " Group 0 Pid 1 on   host device  0\n";
  text << "#       size         count      type   redop    root     time   algbw   busbw #wrong\n";
  for (double bytes = 1024; bytes < 1e9; bytes *= 4) {
    const double microseconds = 5 + ranks + bytes * (ranks - 1) / ranks / 4e5;
    text << std::fixed << bytes << " " << bytes / 4 << " float none -1 " << microseconds << " 1 1 0\n";
  }
  return text.str();
}

const std::vector<std::string> kNewMachine{"--bandwidth", "4.8TB/s",           "--peak-bf16", "989TFLOP/s", "--cache",
                                           "50MB",        "--multiprocessors", "132",         "--system",   "made-up"};

class KernelCommands : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = fresh_folder("kernel-commands");
    write_text(folder_ + "/moe.vllm-1.0.csv", table_of(tile_exact_moe(grid_shapes(), 0.01)));
    write_text(folder_ + "/new.csv", table_of(tile_exact_moe({{2560, 896, 6, 96}, {3584, 1280, 8, 144}}, 0.01, 8)));
    std::vector<std::string> words{"import", "table", folder_ + "/moe.vllm-1.0.csv", "--out", folder_ + "/made-up"};
    words.insert(words.end(), kNewMachine.begin(), kNewMachine.end());
    const Finished imported = run_moecast(words);
    ASSERT_EQ(imported.code, 0) << imported.err;
    EXPECT_THAT(imported.out, HasSubstr("2016 rows of 1 kernels, 2016 kept"));
    const Finished calibrated = run_moecast({"calibrate", folder_ + "/made-up"});
    ASSERT_EQ(calibrated.code, 0) << calibrated.err;
  }
  static std::string folder_;
};
std::string KernelCommands::folder_;

TEST_F(KernelCommands, ValidatePredictsShapesThatTheProfileLacks) {
  const Finished finished = run_moecast({"validate", "kernels", "--hw", folder_ + "/made-up", "--backend", "vllm-1.0",
                                         "--table", folder_ + "/new.csv", "--operator", "moe", "--format", "json"});
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json json = Json::parse(finished.out);
  const Json& all = json.at("strata").at(0);
  EXPECT_EQ(all.at("name"), "all");
  EXPECT_EQ(all.at("n"), 504);
  EXPECT_LT(all.at("median_ape"), 0.06);
  EXPECT_GT(all.at("coverage_90_ratio"), 0.85);
  // Both baselines are worse.
  EXPECT_GT(all.at("baselines").at("nearest"), all.at("mape"));
  EXPECT_GT(all.at("baselines").at("roofline"), all.at("mape"));
  std::vector<std::string> names;
  for (const Json& stratum : json.at("strata")) names.push_back(stratum.at("name"));
  for (const char* name : {"dtype bfloat16", "load balanced", "tokens <= 16", "tp 2", "ep 4", "shape 2560x896x6x96"}) {
    EXPECT_THAT(names, testing::Contains(name));
  }
}

TEST_F(KernelCommands, AnUnknownBackendIsAnsweredByItsNearestRelativeAndSaysSo) {
  const Finished finished = run_moecast({"validate", "kernels", "--hw", folder_ + "/made-up", "--backend", "vllm-9.9",
                                         "--table", folder_ + "/new.csv", "--operator", "moe"});
  ASSERT_EQ(finished.code, 0) << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("never measured; stands for it: version 1.0"));
}

TEST_F(KernelCommands, LeaveOutDoesTheCrossValidationItself) {
  const std::string table = folder_ + "/moe.vllm-1.0.csv";
  for (const char* group : {"shape", "experts", "inter"}) {
    const Finished finished = run_moecast({"validate", "kernels", "--hw", folder_ + "/made-up", "--table", table,
                                           "--leave-out", group, "--format", "json"});
    ASSERT_EQ(finished.code, 0) << finished.err;
    EXPECT_LT(Json::parse(finished.out).at("strata").at(0).at("median_ape"), 0.15) << group;
  }
  const Finished wrong =
      run_moecast({"validate", "kernels", "--hw", folder_ + "/made-up", "--table", table, "--leave-out", "colour"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("\"colour\" is no group"));
}

TEST_F(KernelCommands, ABoundThatIsMissedIsExitCodeOne) {
  const Finished missed = run_moecast({"validate", "kernels", "--hw", folder_ + "/made-up", "--backend", "vllm-1.0",
                                       "--table", folder_ + "/new.csv", "--operator", "moe", "--bound", "0.000001"});
  EXPECT_EQ(missed.code, 1);
}

TEST_F(KernelCommands, ExplainShowsTheCard) {
  const Finished card = run_moecast({"explain", "--hw", folder_ + "/made-up"});
  ASSERT_EQ(card.code, 0) << card.err;
  EXPECT_THAT(card.out, HasSubstr("4.8 TB/s"));
  EXPECT_THAT(card.out, HasSubstr("vllm-1.0 moe tile_exact bfloat16"));
  EXPECT_THAT(card.out, HasSubstr("missing: gemm"));
  const Finished json = run_moecast({"explain", "--hw", folder_ + "/made-up", "--format", "json"});
  EXPECT_EQ(Json::parse(json.out).at("kernels").at(0).at("shapes"), 8);
  EXPECT_THAT(card.out, HasSubstr("which kernel a framework picks: no rule"));
  EXPECT_THAT(card.out, HasSubstr("share of the datasheet's memory bandwidth that streams weights"));
}

TEST(ShippedProfiles, TheCardSaysWhichKernelAFrameworkPicksAndHowThatIsKnown) {
  const Finished card = run_moecast({"explain", "--hw", "h200-sxm"});
  ASSERT_EQ(card.code, 0) << card.err;
  EXPECT_THAT(card.out, HasSubstr("moe_ep_size 1"));
  EXPECT_THAT(card.out, HasSubstr("tuned tiles of sglang_fused_moe_triton bfloat16"));
  const Finished text = run_moecast({"explain", "--hw", "h200-sxm", "--format", "json"});
  const Json json = Json::parse(text.out);
  int measured = 0;
  int assumed = 0;
  for (const Json& rule : json.at("kernel_rules")) {
    EXPECT_EQ(rule.at("agree"), rule.at("rows"));
    ++(rule.at("origin") == "measured" ? measured : assumed);
  }
  EXPECT_GT(measured, 20);
  EXPECT_GT(assumed, 0);
  const Json& law = json.at("kernels").at(0).at("coefficients");
  EXPECT_FALSE(law.begin()->at("meaning").get<std::string>().empty());
}

TEST(ShippedProfiles, ValidateJudgesTheRulesByTheKernelsThatATableRecords) {
  const std::string table = testing::TempDir() + "moecast_picks.csv";
  // Hopper's vLLM in fp8_block: Triton on one rank, CUTLASS over several. The last row is no choice of vLLM's.
  write_text(table,
             "kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,"
             "distribution,latency\n"
             "vllm_fp8moe_triton_tritonexperts,fp8_block,64,2560,896,6,96,1,1,balanced,0.2\n"
             "vllm_fp8moe_flashinfer_cutlass_flashinferexperts,fp8_block,64,2560,896,6,96,1,4,balanced,0.1\n"
             "vllm_fp8moe_triton_tritonexperts,fp8_block,64,2560,896,6,96,1,4,balanced,0.1\n");
  const Finished finished = run_moecast({"validate", "kernels", "--hw", "h200-sxm", "--backend", "vllm-0.24.0",
                                         "--operator", "moe", "--table", table, "--format", "json"});
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json picks = Json::parse(finished.out).at("kernel_picks");
  EXPECT_EQ(picks.at("agree"), 2);
  EXPECT_EQ(picks.at("disagree"), 1);
  EXPECT_THAT(picks.at("example").get<std::string>(), HasSubstr("tritonexperts"));
  std::filesystem::remove(table);
}

TEST_F(KernelCommands, CalibratesByteForByte) {
  const auto bytes = [] {
    std::ifstream file(folder_ + "/made-up/kernels.bin", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string before = bytes();
  ASSERT_EQ(run_moecast({"calibrate", folder_ + "/made-up"}).code, 0);
  EXPECT_TRUE(bytes() == before);
}

TEST_F(KernelCommands, AProfileRemembersTheSisterWhoseKernelsItHolds) {
  const std::string young = folder_ + "/young";
  write_text(folder_ + "/two", nccl_output(2));
  write_text(folder_ + "/four", nccl_output(4));
  std::vector<std::string> words{"import", "nccl-tests", folder_ + "/two", folder_ + "/four", "--version",
                                 "2.29.2", "--link",     "450GB/s",        "--out",           young};
  words.insert(words.end(), kNewMachine.begin(), kNewMachine.end() - 1);
  words.emplace_back("young");
  ASSERT_EQ(run_moecast(words).code, 0);
  const auto kernels_after = [&](std::vector<std::string> more) {
    std::vector<std::string> calibrate{"calibrate", young, "--format", "json"};
    calibrate.insert(calibrate.end(), more.begin(), more.end());
    const Finished finished = run_moecast(calibrate);
    EXPECT_EQ(finished.code, 0) << finished.err;
    return Json::parse(finished.out).size();
  };
  const std::size_t alone = kernels_after({});
  EXPECT_EQ(kernels_after({"--sister", folder_ + "/made-up"}), alone + 1);
  EXPECT_EQ(kernels_after({}), alone + 1) << "the flag is forgotten, the sister is not";
  EXPECT_EQ(kernels_after({"--sister", "none"}), alone);
  EXPECT_EQ(kernels_after({}), alone);
  EXPECT_EQ(run_moecast({"calibrate", young, "--sister", young}).code, 3);
  EXPECT_EQ(run_moecast({"calibrate", young, "--sister", std::string(300, 'x')}).code, 3) << "no file may be named so";
  EXPECT_EQ(kernels_after({"--sister", folder_ + "/made-up"}), alone + 1);
  EXPECT_THAT(run_moecast({"calibrate", folder_ + "/made-up", "--sister", young}).err, HasSubstr("learns from this"));
  std::filesystem::rename(folder_ + "/made-up", folder_ + "/elsewhere");
  const Finished gone = run_moecast({"calibrate", young});
  std::filesystem::rename(folder_ + "/elsewhere", folder_ + "/made-up");
  EXPECT_EQ(gone.code, 3);
  EXPECT_THAT(gone.err, HasSubstr("names a sister that is not here: made-up"));
  EXPECT_THAT(gone.err, HasSubstr("--sister none"));
}

TEST_F(KernelCommands, AddedRowsSayHowFarTheyHadBeenMissed) {
  const std::string own = folder_ + "/own";
  std::filesystem::copy(folder_ + "/made-up", own, std::filesystem::copy_options::recursive);
  KernelSamples few = pick_rows(tile_exact_moe({{2560, 896, 6, 96}}, 0.01), {3, 5, 7});
  for (double& seconds : few.latency_s) seconds *= 1.5;
  write_text(folder_ + "/few.csv", table_of(few));
  const auto add = [&](const std::string& format) {
    return run_moecast({"calibrate", own, "--add", folder_ + "/few.csv", "--backend", "vllm-1.0", "--format", format});
  };
  const Finished first = add("json");
  ASSERT_EQ(first.code, 0) << first.err;
  const Json record = Json::parse(first.out).at(0);
  EXPECT_EQ(record.at("added_rows"), 3);
  EXPECT_NEAR(record.at("added_median_ape_before"), 1 / 3.0, 0.08);
  EXPECT_LT(record.at("added_median_ape_after"), 0.05);
  EXPECT_THAT(add("table").out, HasSubstr("added to vllm-1.0 moe"));
}

TEST_F(KernelCommands, ABrokenTableNamesItsPlaceAndChangesNothing) {
  write_text(folder_ + "/broken.csv", "kernel_source,gemm_dtype,m,n,k,latency\na,fp8,1,2\n");
  const Finished finished = run_moecast({"import", "table", folder_ + "/broken.csv", "--system", "made-up",
                                         "--framework", "vllm", "--version", "1.0", "--out", folder_ + "/made-up"});
  EXPECT_EQ(finished.code, 3);
  EXPECT_THAT(finished.err, HasSubstr("broken.csv: line 2"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/made-up/samples/gemm.vllm-1.0.csv.gz"));
}

TEST_F(KernelCommands, NothingIsDroppedOrChangedSilently) {
  const auto import = [&](const std::string& text) {
    write_text(folder_ + "/moe.vllm-2.0.csv", text);
    std::vector<std::string> words{"import", "table", folder_ + "/moe.vllm-2.0.csv", "--out", folder_ + "/other"};
    words.insert(words.end(), kNewMachine.begin(), kNewMachine.end());
    return run_moecast(words);
  };
  const std::string whole = table_of(tile_exact_moe({{2560, 896, 6, 96}}, 0.01));
  const std::string header = whole.substr(0, whole.find('\n') + 1);
  EXPECT_THAT(import(header).err, HasSubstr("holds no row"));
  EXPECT_EQ(import("\xEF\xBB\xBF" + whole).code, 0) << "a byte-order mark";
  EXPECT_THAT(import(whole + "a,bfloat16,16.5,2560,896,6,96,1,1,balanced,1\n").out,
              HasSubstr("num_tokens is no whole number"));
  // Microseconds in a column of milliseconds.
  KernelSamples wrong = tile_exact_moe({{2560, 896, 6, 96}}, 0.01);
  for (double& seconds : wrong.latency_s) seconds *= 1000;
  EXPECT_THAT(import(table_of(wrong)).out, HasSubstr("is the latency in the unit of its column?"));
  write_text(folder_ + "/bad.csv", header + "a,bfloat16,16,2560,896,6,96,1,1,balanced,-1\n");
  const Finished none =
      run_moecast({"calibrate", folder_ + "/made-up", "--add", folder_ + "/bad.csv", "--backend", "vllm-1.0"});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.err, HasSubstr("1 rows not added: latency"));
  EXPECT_THAT(none.err, HasSubstr("adds no row"));
  // Shipped profiles stay what they are.
  const Finished shipped =
      run_moecast({"calibrate", "h200-sxm", "--add", folder_ + "/new.csv", "--backend", "vllm-0.24.0"});
  EXPECT_EQ(shipped.code, 2);
  EXPECT_THAT(shipped.err, HasSubstr("ships with moecast"));
  EXPECT_THAT(shipped.err, HasSubstr("cp -r"));
}

TEST_F(KernelCommands, ADamagedCalibrationIsRefusedWithTheWayOut) {
  std::filesystem::copy(folder_ + "/made-up", folder_ + "/damaged", std::filesystem::copy_options::recursive);
  std::filesystem::resize_file(folder_ + "/damaged/kernels.bin", 2000);
  const Finished finished = run_moecast({"validate", "kernels", "--hw", folder_ + "/damaged", "--backend", "vllm-1.0",
                                         "--table", folder_ + "/new.csv", "--operator", "moe"});
  EXPECT_EQ(finished.code, 3);
  EXPECT_THAT(finished.err, HasSubstr("moecast calibrate"));
}

TEST(Collectives, NcclTestsBecomeAProfileThatPredictsOtherRankCounts) {
  const std::string folder = fresh_folder("nccl-tests");
  std::vector<std::string> words{"import", "nccl-tests"};
  for (const int ranks : {2, 4}) {
    write_text(folder + "/" + std::to_string(ranks), nccl_output(ranks));
    words.push_back(folder + "/" + std::to_string(ranks));
  }
  for (const char* word : {"--version", "2.29.2", "--link", "450GB/s", "--out"}) words.emplace_back(word);
  words.push_back(folder + "/made-up");
  words.insert(words.end(), kNewMachine.begin(), kNewMachine.end());
  const Finished imported = run_moecast(words);
  ASSERT_EQ(imported.code, 0) << imported.err;
  ASSERT_EQ(run_moecast({"calibrate", folder + "/made-up"}).code, 0);
  std::ostringstream table;
  table << "op_name,nccl_dtype,num_gpus,message_size,latency\n";
  for (double bytes = 4096; bytes < 1e9; bytes *= 8) {
    table << "all_gather,float,8," << std::fixed << bytes / 4 << "," << (13 + bytes * 7 / 8 / 4e5) / 1e3 << "\n";
  }
  write_text(folder + "/nccl.nccl-2.29.2.csv", table.str());
  const Finished judged = run_moecast({"validate", "collectives", "--hw", folder + "/made-up", "--table",
                                       folder + "/nccl.nccl-2.29.2.csv", "--format", "json"});
  ASSERT_EQ(judged.code, 0) << judged.err;
  const Json all = Json::parse(judged.out).at("strata").at(0);
  EXPECT_LE(all.at("median_ape"), 0.08);
  EXPECT_GE(all.at("coverage_90_ratio"), 0.8);
  // What import wrote is a table too; what nccl-tests printed is not yet.
  const auto judge = [&](const std::string& file) {
    return run_moecast({"validate", "collectives", "--hw", folder + "/made-up", "--table", file, "--format", "json"});
  };
  const Finished own = judge(folder + "/made-up/samples/nccl.nccl-2.29.2.csv.gz");
  ASSERT_EQ(own.code, 0) << own.err;
  EXPECT_EQ(Json::parse(own.out).at("strata").at(0).at("n"), 20);
  const Finished raw = judge(folder + "/2");
  EXPECT_EQ(raw.code, 3);
  EXPECT_THAT(raw.err, HasSubstr("moecast import nccl-tests"));
}

TEST(Collectives, AHandfulOfRowsIsNotNothing) {
  const std::string folder = fresh_folder("nccl-few");
  std::string text = nccl_output(2);
  text.resize(text.find("16384.000000"));
  write_text(folder + "/out.txt", text);
  std::vector<std::string> words{"import",  "nccl-tests", folder + "/out.txt", "--version", "2.29.2", "--link",
                                 "450GB/s", "--out",      folder + "/x"};
  words.insert(words.end(), kNewMachine.begin(), kNewMachine.end());
  ASSERT_EQ(run_moecast(words).code, 0);
  const Finished finished = run_moecast({"calibrate", folder + "/x"});
  EXPECT_EQ(finished.code, 3);
  EXPECT_THAT(finished.err, HasSubstr("fewer than 20 rows"));
}

TEST(Collectives, OutputThatNamesNoCollectiveAsksForIt) {
  const std::string folder = fresh_folder("nccl-unnamed");
  std::string text = nccl_output(2);
  text.erase(0, text.find('\n') + 1);
  write_text(folder + "/out.txt", text);
  const Finished finished = run_moecast({"import", "nccl-tests", folder + "/out.txt", "--version", "2.29.2", "--system",
                                         "h100-sxm", "--out", folder + "/x"});
  EXPECT_EQ(finished.code, 2);
  EXPECT_THAT(finished.err, HasSubstr("--operation all_reduce"));
  EXPECT_FALSE(std::filesystem::exists(folder + "/x"));
}

TEST(KernelTables, ANewMachineNeedsItsDatasheet) {
  const std::string folder = fresh_folder("kernel-new-machine");
  write_text(folder + "/gemm.vllm-1.0.csv", "kernel_source,gemm_dtype,m,n,k,latency\na,fp8,1,2,3,0.1\n");
  const Finished finished =
      run_moecast({"import", "table", folder + "/gemm.vllm-1.0.csv", "--system", "unheard-of", "--out", folder + "/x"});
  EXPECT_EQ(finished.code, 2);
  EXPECT_THAT(finished.err, HasSubstr("--bandwidth"));
}

/// A layer of eight experts on H100 with such rows of each.
double layer_seconds(const std::string& flag, const std::string& value, const std::string& ranks) {
  const Finished finished =
      run_moecast({"predict", "--hidden", "4096", "--width", "1536", "--experts", "8", "--top-k", "2", "--tokens",
                   "400", "--hw", "h100-sxm", "--ep", ranks, flag, value, "--format", "json"});
  EXPECT_EQ(finished.code, 0) << finished.err;
  return finished.code == 0 ? Json::parse(finished.out).at("latency_s").get<double>() : 0;
}

TEST(ExactRows, AnyHistogramIsAnsweredOnAGpu) {
  const std::string even = "100,100,100,100,100,100,100,100";
  const std::string two = "400,400,0,0,0,0,0,0";
  EXPECT_NEAR(layer_seconds("--rows", even, "1") / layer_seconds("--load", "uniform", "1"), 1, 0.05);
  EXPECT_LT(layer_seconds("--rows", two, "1"), 0.8 * layer_seconds("--rows", even, "1")) << "a quarter of the weights";
  EXPECT_GT(layer_seconds("--rows", two, "4"), 1.1 * layer_seconds("--rows", even, "4")) << "one rank has all rows";
  EXPECT_EQ(layer_seconds("--rows", two, "4"), layer_seconds("--rows", "0,0,0,0,400,400,0,0", "4")) << "another has";
}

TEST(Versions, ThatWereNotMeasuredAreSaid) {
  const auto warnings = [](const char* backend) {
    return run_moecast({"predict", "--model", "qwen3-30b-a3b", "--hw", "h200-sxm", "--backend", backend}).err;
  };
  EXPECT_THAT(warnings("vllm-9.9"), HasSubstr("vllm 9.9 was not measured on h200-sxm: kernels of 0.24.0 stand for it"));
  EXPECT_THAT(warnings("vllm-0.24.0"), testing::Not(HasSubstr("stand for it")));
}

TEST(Fusion, InputsOfFp8LinearLayersAreQuantisedBefore) {
  // The table's 8192 x 2048 layer takes 16.4 us for 4 rows, the computation of scales alone 7.4 us, quantisation 1.3.
  const Finished finished =
      run_moecast({"predict", "--model", "llama-3.1-70b", "--hw", "h200-sxm", "--backend", "trtllm", "--tp", "4",
                   "--batch", "4", "--context", "1024", "--dtype", "fp8", "--format", "json"});
  ASSERT_EQ(finished.code, 0) << finished.err;
  const Json answer = Json::parse(finished.out);
  const auto& operators = answer.at("operators");
  const auto out = std::ranges::find_if(operators, [](const Json& op) { return op.at("name") == "attention.out"; });
  ASSERT_NE(out, operators.end());
  EXPECT_NEAR(out->at("latency_s").get<double>() / 80, 16.4e-6 - 7.4e-6 - 1.3e-6, 1e-6);
  EXPECT_THAT(out->at("stage").get<std::string>(), HasSubstr("less scales and quantisation of its inputs"));
}

TEST(ExactRows, AreThoseOfTheLayer) {
  const auto refused = [](const std::string& rows) {
    const Finished finished = run_moecast({"predict", "--hidden", "4096", "--width", "1536", "--experts", "8",
                                           "--top-k", "2", "--tokens", "400", "--hw", "h100-sxm", "--rows", rows});
    EXPECT_EQ(finished.code, 2);
    return finished.err;
  };
  EXPECT_THAT(refused("1,2"), HasSubstr("has 2 experts, the layer 8"));
  EXPECT_THAT(refused("401,0,0,0,0,0,0,0"), HasSubstr("gives an expert 401 rows of 400 tokens"));
}

}  // namespace
}  // namespace moecast::test
