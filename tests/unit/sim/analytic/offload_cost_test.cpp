#include "sim/analytic/offload_cost.h"

#include <gtest/gtest.h>

#include "models/architecture/zoo.h"
#include "models/core/error.h"
#include "sim/step/gpu_predictor.h"

namespace moecast {
namespace {

const std::string kRoot = MOECAST_SOURCE_DIR;

const Architecture& mixtral() {
  static const Architecture loaded = load_zoo(kRoot + "/models/zoo", "mixtral-8x7b");
  return loaded;
}

const Predictor& h100() {
  static const std::unique_ptr<Predictor> loaded =
      load_gpu_predictor(kRoot + "/hwprofiles/h100-sxm", kRoot + "/models/plan/engines");
  return *loaded;
}

Workload decode(LoadKind kind = LoadKind::uniform) {
  Workload w;
  w.batch = 1;
  w.context = 1024;
  w.load.kind = kind;
  w.load.parameter = 1;
  return w;
}

Deployment offload(std::optional<std::int64_t> resident, double bytes_per_s = 50e9) {
  Deployment d;
  d.offload.emplace();
  d.offload->resident = resident;
  d.offload->link = BytesPerSecond(bytes_per_s);
  return d;
}

TEST(OffloadCost, AnAddedTimeIsWorkedByHand) {
  // One token, 2 of 8 alike, 4 held: of 2 experts one is missed in each of 32 layers.
  // An expert of 352.3 MB takes 3 us + 7.046 ms at 50 GB/s: 225.6 ms a step.
  Prediction prediction;
  prediction.latency = Seconds(0.01);
  prediction.low = Seconds(0.009);
  prediction.high = Seconds(0.011);
  const HostLink link{BytesPerSecond(50e9), BytesPerSecond(40e9), BytesPerSecond(100e9), Origin::measured};
  charge_offload(mixtral(), offload(4), decode(), link, {}, prediction);
  const double expert = 3.0 * 4096 * 14336 * 2;
  const double fetched = 32 * (3e-6 + expert / 50e9);
  EXPECT_NEAR(prediction.latency->value(), 0.01 + fetched, 1e-9);
  EXPECT_NEAR(prediction.low->value(), 0.009 + 32 * (3e-6 + expert / 100e9), 1e-9);
  EXPECT_NEAR(prediction.high->value(), 0.011 + 32 * (3e-6 + expert / 40e9), 1e-9);
  EXPECT_NEAR(prediction.offload->hit_ratio, 0.5, 1e-9);
  EXPECT_NEAR(prediction.offload->missed, 1, 1e-9);
  EXPECT_NEAR(prediction.offload->fetched.value(), 32 * expert, 1);
  EXPECT_NEAR(prediction.offload->host.value(), 32 * 4 * expert, 1);
  EXPECT_NEAR(*prediction.throughput_tokens_per_s, 1 / prediction.latency->value(), 1e-9);
  EXPECT_EQ(prediction.bottleneck, "host_link");
  EXPECT_EQ(prediction.operators.back().kind, "weight_transfer");
}

TEST(OffloadCost, WhatALayerHidesIsNotWaitedFor) {
  const HostLink link{BytesPerSecond(50e9), BytesPerSecond(50e9), BytesPerSecond(50e9), Origin::measured};
  const auto step = [&](double seconds, FetchOverlap overlap) {
    Prediction prediction;
    prediction.latency = Seconds(seconds);
    Deployment d = offload(4);
    d.offload->overlap = overlap;
    charge_offload(mixtral(), d, decode(), link, {}, prediction);
    return prediction;
  };
  // Layers of a second each hide all; layers of nearly nothing hide nothing; in between the longer of both counts.
  EXPECT_NEAR(step(32, FetchOverlap::layer).latency->value(), 32, 1e-9);
  EXPECT_NEAR(step(1e-6, FetchOverlap::layer).latency->value(), step(1e-6, FetchOverlap::none).latency->value(), 2e-6);
  const Prediction half = step(0.1, FetchOverlap::layer);
  EXPECT_GT(half.latency->value(), half.offload->transfer.value());
  EXPECT_LT(half.latency->value(), step(0.1, FetchOverlap::none).latency->value());
}

TEST(OffloadCost, MixtralIsAnsweredOnEightyGigabytes_A17) {
  Deployment plain;
  EXPECT_EQ(h100().predict(mixtral(), plain, decode(LoadKind::log_normal)).status, Status::does_not_fit);
  Deployment d;
  d.offload.emplace();
  const Prediction answer = h100().predict(mixtral(), d, decode(LoadKind::log_normal));
  ASSERT_EQ(answer.status, Status::ok) << answer.reason;
  EXPECT_LE(answer.memory.total(), *answer.memory.capacity);
  EXPECT_LT(answer.offload->resident, 8);
  EXPECT_GE(answer.offload->resident, 5);
  // What is fetched passes a link of 64 GB/s at best.
  EXPECT_GT(answer.offload->transfer.value(), answer.offload->fetched.value() / 64e9);
  EXPECT_EQ(answer.origin, Origin::datasheet);
  EXPECT_LT(*answer.low, *answer.latency);
  EXPECT_LT(*answer.latency, *answer.high);
}

TEST(OffloadCost, MoreResidentExpertsAreNeverSlowerAndAllOfThemAreAsWithout) {
  const Architecture model = load_zoo(kRoot + "/models/zoo", "qwen3-30b-a3b");
  for (const ResidencyPolicy policy : {ResidencyPolicy::lru, ResidencyPolicy::most_popular}) {
    double last = 1e300;
    for (const int resident : {0, 8, 32, 64, 120, 128}) {
      Deployment d = offload(resident);
      d.offload->policy = policy;
      const Prediction answer = h100().predict(model, d, decode(LoadKind::log_normal));
      EXPECT_LE(answer.latency->value(), last * (1 + 1e-9)) << resident;
      last = answer.latency->value();
    }
    EXPECT_DOUBLE_EQ(last, h100().predict(model, {}, decode(LoadKind::log_normal)).latency->value());
  }
}

TEST(OffloadCost, AnUnknownLinkIsNoAnswer) {
  Prediction prediction;
  prediction.latency = Seconds(0.01);
  charge_offload(mixtral(), offload(4), decode(), std::nullopt, {}, prediction);
  EXPECT_EQ(prediction.status, Status::outside_range);
  EXPECT_FALSE(prediction.latency);
  EXPECT_FALSE(prediction.offload->link);
  EXPECT_NE(prediction.reason.find("--host-link"), std::string::npos);
}

TEST(OffloadCost, TheLinkIsTheUsersElseTheProfiles) {
  Profile profile;
  ExpertOffload asked;
  EXPECT_FALSE(host_link(profile, asked));
  profile.quantities[kHostBandwidth] = {64e9, "B/s", std::nullopt, std::nullopt, Origin::datasheet, "sheet"};
  const auto sheet = host_link(profile, asked);
  EXPECT_DOUBLE_EQ(sheet->bandwidth.value(), 0.86 * 64e9);
  EXPECT_LT(sheet->low, sheet->bandwidth);
  EXPECT_GT(sheet->high, sheet->bandwidth);
  asked.link = BytesPerSecond(25e9);
  EXPECT_EQ(host_link(profile, asked)->bandwidth, BytesPerSecond(25e9));
}

TEST(OffloadCost, RemovingMemoryBandwidthRemovesTheFetching) {
  Without without;
  without.memory_bandwidth = true;
  const Prediction free = h100().predict(mixtral(), offload(4), decode(), without);
  const Prediction charged = h100().predict(mixtral(), offload(4), decode());
  EXPECT_LT(free.latency->value() + charged.offload->exposed.value(), charged.latency->value() + 1e-9);
}

TEST(OffloadCost, ACpuPagesExpertsFromItsDisk_A17) {
  const std::unique_ptr<Predictor> xeon = Predictor::load(kRoot + "/hwprofiles/intel-xeon-processor-2cpu");
  const Architecture model = load_zoo(kRoot + "/models/zoo", "qwen3-30b-a3b");
  Deployment d;
  d.threads = 2;
  EXPECT_EQ(xeon->predict(model, d, decode()).status, Status::does_not_fit);
  d.offload.emplace();
  EXPECT_EQ(xeon->predict(model, d, decode()).status, Status::outside_range);
  d.offload->link = BytesPerSecond(2e9);
  const Prediction paged = xeon->predict(model, d, decode());
  ASSERT_EQ(paged.status, Status::ok) << paged.reason;
  EXPECT_LE(paged.memory.total(), *paged.memory.capacity);
  EXPECT_GT(paged.latency->value(), paged.offload->transfer.value());
}

}  // namespace
}  // namespace moecast
