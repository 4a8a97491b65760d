#include "profiler/cuda/presence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/core/error.h"
#include "profiler/cuda/device.h"

namespace moecast {
namespace {

using ::testing::HasSubstr;

GpuPresence ready() {
  GpuPresence presence;
  presence.built = true;
  presence.runtime = 13000;
  presence.driver = 13010;
  presence.devices = {"NVIDIA H100 80GB HBM3"};
  return presence;
}

TEST(GpuObstacle, IsNoneWhereADeviceCanBeOpened) { EXPECT_FALSE(gpu_obstacle(ready(), 0)); }

TEST(GpuObstacle, NamesTheFirstThingThatIsMissing) {
  GpuPresence presence;
  EXPECT_THAT(gpu_obstacle(presence, 0)->problem, HasSubstr("built without CUDA"));
  EXPECT_THAT(gpu_obstacle(presence, 0)->advice, HasSubstr("MOECAST_CUDA=ON"));
  presence = ready();
  presence.devices.clear();
  presence.driver = 0;
  EXPECT_THAT(gpu_obstacle(presence, 0)->problem, HasSubstr("no NVIDIA driver"));
  presence.driver = 12020;
  EXPECT_EQ(gpu_obstacle(presence, 0)->problem, "the NVIDIA driver runs CUDA 12.2, this program needs 13.0");
  presence.driver = 13000;
  presence.refusal = "no CUDA-capable device is detected";
  EXPECT_THAT(gpu_obstacle(presence, 0)->problem, HasSubstr("no GPU (no CUDA-capable device is detected)"));
  EXPECT_THAT(gpu_obstacle(presence, 0)->advice, HasSubstr("nvidia-smi"));
  presence.visible = "-1";
  EXPECT_THAT(gpu_obstacle(presence, 0)->advice, HasSubstr("CUDA_VISIBLE_DEVICES=-1"));
}

TEST(GpuObstacle, KnowsTheNumbersOfTheDevices) {
  EXPECT_THAT(gpu_obstacle(ready(), 1)->advice, HasSubstr("from 0 to 0"));
  EXPECT_TRUE(gpu_obstacle(ready(), -1));
}

TEST(GpuObstacle, WhatThisMachineLacksIsWhatOpeningADeviceSays) {
  const auto obstacle = gpu_obstacle(look_for_gpu(), 0);
  if (!obstacle) GTEST_SKIP() << "a GPU answers here";
  try {
    open_gpu(0, Bytes(1e9));
    FAIL() << "opened a GPU";
  } catch (const DeviceError& error) {
    EXPECT_EQ(error.problem(), obstacle->problem);
    EXPECT_EQ(error.hint(), obstacle->advice);
  }
}

}  // namespace
}  // namespace moecast
