#include "models/core/quantity_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/core/error.h"

namespace moecast {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string hint_of(const auto& call) {
  try {
    call();
  } catch (const UsageError& error) {
    return error.hint();
  }
  return "accepted";
}

TEST(ParseQuantity, ReadsUnitsWithAndWithoutASpace) {
  EXPECT_DOUBLE_EQ(parse_seconds("50ms", "").value(), 0.05);
  EXPECT_DOUBLE_EQ(parse_seconds("1.5 us", "").value(), 1.5e-6);
  EXPECT_DOUBLE_EQ(parse_seconds("2min", "").value(), 120);
  EXPECT_DOUBLE_EQ(parse_bytes("80GB", "").value(), 80e9);
  EXPECT_DOUBLE_EQ(parse_bytes("1GiB", "").value(), 1073741824);
  EXPECT_DOUBLE_EQ(parse_flops("100GFLOP", "").value(), 1e11);
  EXPECT_DOUBLE_EQ(parse_flops("100G", "").value(), 1e11);
  EXPECT_DOUBLE_EQ(parse_bytes_per_second("4.8TB/s", "").value(), 4.8e12);
  EXPECT_DOUBLE_EQ(parse_flops_per_second("150GFLOP/s", "").value(), 1.5e11);
}

TEST(ParseQuantity, ARateOfNothingIsRefused) {
  EXPECT_THAT(hint_of([] { parse_bytes_per_second("0GB/s", "--link"); }), HasSubstr("leave it out"));
  EXPECT_THAT(hint_of([] { parse_flops_per_second("0TFLOP/s", "--peak-bf16"); }), HasSubstr("leave it out"));
  EXPECT_EQ(parse_bytes("0B", "").value(), 0);
}

TEST(ParseQuantity, RefusesWhatIsBeyondEveryNumber) {
  EXPECT_THROW(parse_seconds("1e308h", "--ttft"), UsageError);
  EXPECT_THROW(parse_bytes("1e300PB", "--bytes"), UsageError);
  EXPECT_THROW(parse_bytes_per_second("1e300TB/s", "--link"), UsageError);
  EXPECT_DOUBLE_EQ(parse_bytes("1e280PB", "--bytes").value(), 1e295);
}

TEST(ParseQuantity, RefusesBitsAndSaysWhatToWrite) {
  EXPECT_THAT(hint_of([] { parse_bytes("8 Gb", "--memory"); }), HasSubstr("write \"GB\" (10^9 bytes) or \"GiB\""));
  EXPECT_THAT(hint_of([] { parse_bytes_per_second("8GBs", "--bandwidth"); }), HasSubstr("write \"GB/s\""));
  EXPECT_THAT(hint_of([] { parse_seconds("3 days", "--budget"); }), HasSubstr("units: ns, us, ms, s, min, h"));
}

TEST(ParseQuantity, RefusesWhatIsNoQuantity) {
  for (const char* text : {"", "ms", "-1ms", "50", "nan s", "inf s", "1e999s", "1ms2"}) {
    EXPECT_THROW(static_cast<void>(parse_seconds(text, "--budget")), UsageError) << text;
  }
}

TEST(ParseRange, ListsStepsAndFactors) {
  EXPECT_THAT(parse_range("1-64*2", ""), ElementsAre(1, 2, 4, 8, 16, 32, 64));
  EXPECT_THAT(parse_range("1,8,64", ""), ElementsAre(1, 8, 64));
  EXPECT_THAT(parse_range("1-4,16", ""), ElementsAre(1, 2, 3, 4, 16));
  EXPECT_THAT(parse_range("0-100+40", ""), ElementsAre(0, 40, 80));
  EXPECT_THAT(parse_range("7", ""), ElementsAre(7));
}

TEST(ParseRange, RefusesNonsense) {
  for (const char* text : {"", ",", "8-1", "1-8*1", "0-8*2", "1-", "a", "1-1000000000", "99999999999999999999"}) {
    EXPECT_THROW(static_cast<void>(parse_range(text, "--ep")), UsageError) << text;
  }
  EXPECT_THROW(static_cast<void>(parse_range("0-4", "--ep", 1)), UsageError);
}

TEST(ParseCount, NamesTheAllowedRange) {
  EXPECT_EQ(parse_count("12", "--ep", 1, 64), 12);
  EXPECT_EQ(hint_of([] { static_cast<void>(parse_count("65", "--ep", 1, 64)); }), "expected 1 to 64");
  EXPECT_EQ(hint_of([] { static_cast<void>(parse_count("0", "--ep", 1)); }), "expected at least 1");
}

TEST(FormatQuantity, KeepsThreeSignificantDigits) {
  EXPECT_EQ(format_seconds(Seconds(2.314e-3)), "2.31 ms");
  EXPECT_EQ(format_seconds(Seconds(0.9999996)), "1 s");
  EXPECT_EQ(format_seconds(Seconds(3.2e-10)), "0.32 ns");
  EXPECT_EQ(format_seconds(Seconds(0)), "0 ns");
  EXPECT_EQ(format_bytes(Bytes(93.4e9)), "93.4 GB");
  EXPECT_EQ(format_bytes(Bytes(100e9)), "100 GB");
  EXPECT_EQ(format_flops(Flops(1.2e9)), "1.2 GFLOP");
  EXPECT_EQ(format_bytes_per_second(BytesPerSecond(4.8e12)), "4.8 TB/s");
  EXPECT_EQ(format_count(46.7e9), "46.7 B");
  EXPECT_EQ(format_count(12), "12");
  EXPECT_EQ(format_percent(0.0734), "7.3 %");
}

}  // namespace
}  // namespace moecast
