#include <benchmark/benchmark.h>

#include <nlohmann/json.hpp>

#include "models/core/json.h"
#include "models/routing/load.h"

namespace moecast {
namespace {

void ExpectedRows(benchmark::State& state, LoadKind kind) {
  ExpertLoad load;
  load.kind = kind;
  load.parameter = 1.2;
  const auto popularity = expert_popularity(load, state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(expected_rows(popularity, 512, 8));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_CAPTURE(ExpectedRows, uniform, LoadKind::uniform)->Arg(64)->Arg(256);
BENCHMARK_CAPTURE(ExpectedRows, zipf, LoadKind::zipf)->Arg(8)->Arg(64)->Arg(256)->Unit(benchmark::kMicrosecond);

/// A draw of every token's experts: what a simulation of real imbalance costs.
void SampleRows(benchmark::State& state) {
  const auto popularity = expert_popularity({LoadKind::zipf, 1.0, {}, 1}, 64);
  for (auto _ : state) benchmark::DoNotOptimize(sample_rows(popularity, 512, 8, 1));
  state.SetItemsProcessed(state.iterations() * 512);
}
BENCHMARK(SampleRows)->Unit(benchmark::kMicrosecond);

void ParseJson(benchmark::State& state) {
  Json numbers = Json::array();
  for (int i = 0; i < 10000; ++i) numbers.push_back(i * 1.0001);
  const std::string text = dump_json_line(numbers);
  for (auto _ : state) benchmark::DoNotOptimize(parse_json(text, "bench.json"));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK(ParseJson)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace moecast
