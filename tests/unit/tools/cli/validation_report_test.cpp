#include "tools/cli/validation_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace moecast {
namespace {

using testing::HasSubstr;
using testing::Not;

/// One case of a stratum: no order, no rerun, no baseline is known of it.
ValidationReport report_of_one() {
  ValidationReport report;
  StratumReport all;
  all.name = "all";
  all.all = *summarise_errors({{1.1, 0.9, 1.3, 1.0, std::nullopt, std::nullopt, std::nullopt}});
  report.strata.push_back(all);
  return report;
}

TEST(ValidationReport, ShowsADashForWhatOneCaseCannotTell) {
  const std::string text = validation_text(report_of_one(), Format::md);
  const std::string row = text.substr(text.find("| all"), text.find('\n', text.find("| all")) - text.find("| all"));
  EXPECT_THAT(row, HasSubstr("10.0 %"));
  EXPECT_THAT(row, Not(HasSubstr("0.000")));
  std::size_t dashes = 0;
  for (std::size_t at = row.find("–"); at != std::string::npos; at = row.find("–", at + 1)) ++dashes;
  EXPECT_EQ(dashes, 4U) << row;  // tau, noise, two baselines
}

TEST(ValidationReport, WritesNullForWhatOneCaseCannotTell) {
  const Json json = validation_json(report_of_one());
  const Json& all = json.at("strata").at(0);
  for (const char* key : {"kendall_tau", "noise_mape", "noise_p90"}) EXPECT_TRUE(all.at(key).is_null()) << key;
  EXPECT_TRUE(all.at("baselines").at("roofline").is_null());
  EXPECT_DOUBLE_EQ(all.at("coverage_90_ratio").get<double>(), 1);
  EXPECT_TRUE(json.at("noise_floor").is_null());
}

}  // namespace
}  // namespace moecast
