#include "sim/event/expert_fetch.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "models/core/error.h"
#include "models/core/file.h"
#include "models/routing/expert_cache.h"
#include "models/routing/trace_writer.h"
#include "tests/support/h200_machine.h"

namespace moecast {
namespace {

Architecture mixtral() { return zoo_model("mixtral-8x7b"); }

Deployment fetching(int ep, std::int64_t resident, FetchOverlap overlap = FetchOverlap::none) {
  Deployment d;
  d.ep = d.dp = ep;
  d.offload = ExpertOffload{ResidencyPolicy::lru, overlap, resident, std::nullopt, std::nullopt};
  return d;
}

Workload decode(std::int64_t batch) {
  Workload w;
  w.batch = batch;
  w.context = 1000;
  return w;
}

EpOptions few(int samples = 60) { return samples_of(samples); }

TEST(ExpertFetch, ReplayIsACacheOfTheExpertsUsedLast) {
  ExpertFetch fetch;
  fetch.resident = 2;
  fetch.bandwidth = 1;
  fetch.touched = {{0.9, 0.5, 0.1, 0.1}};
  const std::vector<Placement> one{contiguous_placement(4, 1)};
  FetchDraw cache(fetch, one);
  std::vector<int> fetched;
  const auto step = [&](std::vector<double> used) {
    cache.replay(0, used, fetched);
    return fetched.front();
  };
  EXPECT_EQ(step({1, 1, 0, 0}), 0) << "the most popular are there";
  EXPECT_EQ(step({0, 0, 1, 0}), 1) << "held: 2, and 0 or 1";
  EXPECT_EQ(step({0, 0, 1, 0}), 0);
  EXPECT_EQ(step({0, 0, 0, 1}), 1) << "held: 3 and 2";
  EXPECT_EQ(step({1, 1, 0, 0}), 2);
  EXPECT_EQ(step({1, 1, 1, 1}), 2);
  fetch.policy = ResidencyPolicy::most_popular;
  FetchDraw fixed(fetch, one);
  for (int i = 0; i < 3; ++i) {
    fixed.replay(0, std::vector<double>{0, 1, 1, 1}, fetched);
    EXPECT_EQ(fetched.front(), 2) << "nothing moves";
  }
}

TEST(ExpertFetch, DrawsMissAsOftenAsTheClosedFormSays) {
  ExpertFetch fetch;
  fetch.resident = 3;
  fetch.bandwidth = 1;
  const std::vector<double> touched = touch_probability(std::vector<double>{0.6, 0.4, 0.3, 0.2, 0.2, 0.1, 0.1, 0.1}, 2);
  fetch.touched = {touched};
  const std::vector<Placement> two{contiguous_placement(8, 2)};
  const auto of_rank = [&](std::size_t rank) {
    return cache_use(std::span(touched).subspan(4 * rank, 4), 3, fetch.policy).missed;
  };
  FetchDraw drawn(fetch, two);
  Random random(5);
  constexpr int kSteps = 20'000;
  double missed[2] = {0, 0};
  std::vector<double> used(8);
  std::vector<int> fetched;
  for (int step = 0; step < kSteps; ++step) {
    for (std::size_t e = 0; e < 8; ++e) used[e] = random.uniform() < touched[e] ? 1 : 0;
    drawn.draw(0, used, fetched);
    for (int rank = 0; rank < 2; ++rank) missed[rank] += fetched[static_cast<std::size_t>(rank)];
  }
  for (std::size_t rank = 0; rank < 2; ++rank) EXPECT_NEAR(missed[rank] / kSteps, of_rank(rank), 0.05 * of_rank(rank));
}

TEST(ExpertFetch, EventsTakeWhatTheClosedFormSays) {
  // One GPU that holds four of eight experts: nothing hides a copy.
  const Prediction closed = h200_analytic().predict(mixtral(), fetching(1, 4), decode(2));
  const Prediction events =
      predict_ep(h200_machine(), h200_rails(), mixtral(), fetching(1, 4), decode(2), few(), &h200_analytic());
  ASSERT_TRUE(closed.offload && events.offload);
  EXPECT_NEAR(events.offload->hit_ratio, closed.offload->hit_ratio, 0.03);
  EXPECT_NEAR(events.offload->exposed / closed.offload->exposed, 1, 0.03);
  EXPECT_NEAR(events.offload->exposed / events.offload->transfer, 1, 0.01);
  EXPECT_NEAR(*events.latency / *closed.latency, 1, 0.05);
  EXPECT_EQ(events.bottleneck, "host_link");
  EXPECT_LT(events.distribution->p50, events.distribution->p99) << "steps that miss more wait longer";
  EXPECT_LT(*events.low, *events.latency);
}

TEST(ExpertFetch, CopiesAheadHideBehindTheLayer) {
  const auto latency = [](const Deployment& d) {
    return predict_ep(h200_machine(), h200_rails(), mixtral(), d, decode(2), few(), &h200_analytic()).latency->value();
  };
  const double held = latency(fetching(1, 8));
  const double ahead = latency(fetching(1, 4, FetchOverlap::layer));
  const double waits = latency(fetching(1, 4));
  EXPECT_LT(held, ahead);
  EXPECT_LT(ahead, waits);
  // Where all are held nothing is fetched: as without.
  Deployment plain = fetching(1, 8);
  plain.offload.reset();
  EXPECT_NEAR(latency(plain) / held, 1, 1e-9);
}

TEST(ExpertFetch, RanksWaitForTheOneThatMissesMost) {
  const Prediction p =
      predict_ep(h200_machine(), h200_rails(), mixtral(), fetching(4, 1), decode(64), few(), &h200_analytic());
  ASSERT_TRUE(p.offload);
  EXPECT_EQ(p.offload->experts, 2);
  // Every rank uses nearly always both of its experts and holds one of them.
  EXPECT_NEAR(p.offload->missed, 1, 0.05);
  EXPECT_GT(p.offload->exposed.value(), 0);
  EpOptions threads = few();
  threads.threads = 3;
  const Prediction same =
      predict_ep(h200_machine(), h200_rails(), mixtral(), fetching(4, 1), decode(64), threads, &h200_analytic());
  EXPECT_EQ(same.latency->value(), p.latency->value());
}

TEST(ExpertFetch, ARecordedRoutingHitsAsItsTextDoes) {
  // Two layers whose tokens choose the same two experts in every step: these are the popular ones, whatever their
  // number.
  const std::string path = testing::TempDir() + fmt::format("moecast_fetch_{}.csv", getpid());
  for (const std::size_t first : {0U, 3U, 6U}) {
    TraceRecipe recipe;
    recipe.policy.top_k = 2;
    recipe.popularity = std::vector<double>(8, 1e-9);
    recipe.popularity[first] = recipe.popularity[first + 1] = 1;
    recipe.tokens = 4;
    recipe.layers = 2;
    recipe.steps = 5;
    write_file_atomically(path, routing_trace_text(recipe));
    Workload w;
    w.phase = Phase::prefill;
    w.prompt = 4;
    w.load.kind = LoadKind::trace;
    w.load.trace = std::make_shared<const RoutingTrace>(read_routing_trace(path));
    Architecture two = mixtral();
    two.decoder.resize(2);
    two.vocabulary = 0;
    for (const ResidencyPolicy policy : {ResidencyPolicy::lru, ResidencyPolicy::most_popular}) {
      Deployment d = fetching(1, 2);
      d.offload->policy = policy;
      const Prediction p = predict_ep(h200_machine(), h200_rails(), two, d, w, few(5));
      ASSERT_TRUE(p.offload);
      EXPECT_GT(p.offload->hit_ratio, 0.999) << first;
      EXPECT_THAT(p.warnings, testing::Not(testing::Contains(testing::HasSubstr("independently"))));
    }
  }
  std::filesystem::remove(path);
}

TEST(ExpertFetch, EncodersFetchNothingWhereNothingIsEncoded) {
  const Architecture nllb = zoo_model("nllb-moe-54b");
  Deployment d = fetching(8, 4);
  d.dtype = DType::bf16;
  const Prediction p = predict_ep(h200_machine(), h200_rails(), nllb, d, decode(16), few(3));
  ASSERT_TRUE(p.offload);
  // Six of the decoder's layers have experts.
  EXPECT_NEAR(p.offload->fetched.value(), 6 * p.offload->missed * p.offload->expert.value(),
              1e-6 * p.offload->fetched.value());
}

TEST(ExpertFetch, RefusesWhatIsNotSimulated) {
  const auto ask = [](const EpOptions& options) {
    return predict_ep(h200_machine(), h200_rails(), mixtral(), fetching(4, 1), decode(64), options);
  };
  EpOptions chunks = few(2);
  chunks.chunks = 2;
  EXPECT_THROW(ask(chunks), InputError);
  EpOptions batches = few(2);
  batches.batches = 2;
  EXPECT_THROW(ask(batches), InputError);
  EpOptions balanced = few(2);
  balanced.placement = PlacementKind::balanced;
  EXPECT_THROW(ask(balanced), InputError);
  EpOptions drift = few(2);
  drift.orders.drift = 0.1;
  EXPECT_THROW(ask(drift), InputError);
}

TEST(ExpertFetch, AnUnknownLinkIsNoTime) {
  GpuMachine unknown = h200_machine();
  std::erase_if(unknown.profile.quantities, [](const auto& q) { return q.first == kHostBandwidth; });
  const Prediction p = predict_ep(unknown, h200_rails(), mixtral(), fetching(1, 4), decode(2), few(2));
  EXPECT_EQ(p.status, Status::outside_range);
  EXPECT_FALSE(p.latency);
  EXPECT_THAT(p.reason, testing::HasSubstr("--host-link"));
}

}  // namespace
}  // namespace moecast
