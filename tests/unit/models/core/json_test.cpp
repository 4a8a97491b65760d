#include "models/core/json.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "models/core/error.h"

namespace moecast {
namespace {

TEST(ParseJson, NamesLineAndColumnOfASyntaxError) {
  try {
    parse_json("{\n  \"a\": 1,\n  oops\n}", "config.json");
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_NE(error.where().find("config.json: line 3, column 3"), std::string::npos) << error.where();
  }
}

TEST(ParseJson, RefusesDeepNesting) { EXPECT_THROW(parse_json(std::string(100000, '['), "deep.json"), InputError); }

TEST(ParseJson, RefusesDuplicateKeys) { EXPECT_THROW(parse_json(R"({"a":1,"a":2})", "twice.json"), InputError); }

TEST(JsonView, ErrorsCarryThePointer) {
  const Json document = parse_json(R"({"memory":{"value":"much"}})", "hw.json");
  const JsonView root(document, "hw.json");
  try {
    static_cast<void>(root.at("memory").at("value").as_number());
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_EQ(error.where(), "hw.json: /memory/value");
  }
}

TEST(JsonView, SuggestsTheNearestField) {
  const Json document = parse_json(R"({"hiden":4})", "arch.json");
  try {
    JsonView(document, "arch.json").refuse_unknown_keys({"hidden", "layers"});
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_EQ(error.hint(), "did you mean \"hidden\"?");
  }
}

TEST(DumpJson, RefusesNonFiniteNumbers) {
  Json value;
  value["latency_s"] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(dump_json(value), std::logic_error);
}

}  // namespace
}  // namespace moecast
