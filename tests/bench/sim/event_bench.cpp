#include <benchmark/benchmark.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <simgrid/s4u.hpp>

#include "hwprofiles/cluster.h"
#include "models/routing/load.h"
#include "sim/event/engine.h"
#include "sim/event/routing_study.h"

namespace moecast {
namespace {

constexpr std::int64_t kTokensPerRank = 64;
constexpr int kTopK = 8;
constexpr int kExperts = 256;

Topology nodes_of_eight(int ranks) {
  const Cluster cluster = parse_cluster_text(
      R"({"schema_version":1,"name":"x","devices_per_node":8,"most_nodes":1024,
          "scale_up":{"kind":"switch","bandwidth":{"value":450e9,"unit":"B/s","origin":"datasheet","source":"x"}},
          "scale_out":{"kind":"rail_optimised","bandwidth":{"value":50e9,"unit":"B/s","origin":"datasheet","source":"x"}}})",
      "bench");
  return Topology(cluster, ranks, nullptr);
}

RoutingStudy study_of(int ranks, std::int64_t tokens_per_rank, int layers) {
  RoutingStudy study(nodes_of_eight(ranks), nodes_of_eight(ranks));
  study.policy.top_k = kTopK;
  const int experts = std::max(kExperts, ranks);
  study.popularity = expert_popularity({LoadKind::log_normal, 1.0, {}, 1}, experts);
  study.placements = make_placements(PlacementKind::contiguous, study.popularity, 1, ranks, layers, 0, 3);
  study.traffic.deduplication = Deduplication::per_expert;
  study.traffic.dispatch_row_bytes = 7392;
  study.tokens = tokens_per_rank * ranks;
  study.layers = layers;
  study.costs.router_s = 5e-6;
  study.costs.experts_s = [](const RankLoad& load) { return 20e-6 + 1e-6 * load.distinct + 2e-8 * load.rows; };
  study.costs.dispatch_start_s = study.costs.combine_start_s = 10e-6;
  study.costs.dispatch_s = [](double imbalance) { return 10e-6 + 60e-6 * imbalance; };
  study.costs.combine_s = [](double imbalance) { return 10e-6 + 110e-6 * imbalance; };
  return study;
}

/// Full MoE layers: routed token by token, dispatched, computed, combined. Items are layers.
void MoeLayer(benchmark::State& state) {
  const RoutingStudy study = study_of(static_cast<int>(state.range(0)), state.range(1), 8);
  RoutingSimulator simulator(study);
  std::uint64_t sample = 0;
  for (auto _ : state) benchmark::DoNotOptimize(simulator.run(1, sample++));
  state.SetItemsProcessed(state.iterations() * study.layers);
}
BENCHMARK(MoeLayer)
    ->Args({8, 1})
    ->Args({8, 8})
    ->Args({8, 64})
    ->Args({64, 64})
    ->Args({256, 64})
    ->Args({1024, 64})
    ->Unit(benchmark::kMillisecond);

/// The same ports by a bare loop over SimGrid: three phases a layer, one activity a port. Items are layers.
void BareSimGrid(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return state.SkipWithError("no pipe");
  const int layers = ranks >= 1024 ? 8 : 8000 / ranks;
  for (auto _ : state) {
    const pid_t child = fork();  // one engine a process
    if (child == 0) {
      namespace sg = simgrid::s4u;
      std::array<char*, 5> words{const_cast<char*>("x"), const_cast<char*>("--cfg=network/model:CM02"),
                                 const_cast<char*>("--cfg=network/crosstraffic:0"),
                                 const_cast<char*>("--log=root.thres:critical"), nullptr};
      int count = 4;
      sg::Engine engine(&count, words.data());
      auto* zone = sg::create_full_zone("z");
      std::vector<sg::Host*> up, down, memory;
      for (int i = 0; i < ranks; ++i) {
        up.push_back(zone->create_host("u" + std::to_string(i), 450e9));
        down.push_back(zone->create_host("d" + std::to_string(i), 450e9));
        memory.push_back(zone->create_host("m" + std::to_string(i), 3e12));
      }
      zone->seal();
      const auto start = std::chrono::steady_clock::now();
      for (int layer = 0; layer < layers; ++layer) {
        for (int phase = 0; phase < 3; ++phase) {
          std::vector<sg::ExecPtr> all;
          const auto add = [&all](sg::Host* host, double amount) {
            all.push_back(sg::Exec::init()->set_flops_amount(amount)->set_host(host));
            all.back()->start();
          };
          for (int i = 0; i < ranks; ++i) {
            const auto at = static_cast<std::size_t>(i);
            const double amount = 1e6 + (i * 7919 % ranks) * 1e3 + layer;
            if (phase == 1) {
              add(memory[at], amount);
            } else {
              add(up[at], amount);
              add(down[at], amount + 100);
            }
          }
          engine.run();
        }
      }
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      _exit(write(ends[1], &seconds, sizeof seconds) == sizeof seconds ? 0 : 1);
    }
    double seconds = 0;
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0 || read(ends[0], &seconds, sizeof seconds) != sizeof seconds) {
      state.SkipWithError("the child failed");
      break;
    }
    state.SetIterationTime(seconds);
  }
  close(ends[0]);
  close(ends[1]);
  state.SetItemsProcessed(state.iterations() * layers);
}
BENCHMARK(BareSimGrid)->Arg(8)->Arg(64)->Arg(256)->Arg(1024)->UseManualTime()->Unit(benchmark::kMillisecond);

/// 200 sampled routings of 58 layers on both cores. Time is wall time.
void DecodeStepDistribution(benchmark::State& state) {
  const RoutingStudy study = study_of(static_cast<int>(state.range(0)), state.range(1), 58);
  for (auto _ : state) benchmark::DoNotOptimize(run_study(study, 1, 200, 2));
}
BENCHMARK(DecodeStepDistribution)
    ->Args({64, 128})
    ->Args({256, 128})
    ->UseRealTime()
    ->Iterations(1)
    ->Unit(benchmark::kSecond);

}  // namespace
}  // namespace moecast
