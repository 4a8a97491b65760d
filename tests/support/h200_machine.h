#pragma once
#include <string>

#include "models/architecture/reader.h"
#include "sim/event/ep_study.h"
#include "sim/step/gpu_predictor.h"

namespace moecast {

/// The shipped profile of the H200 as both engines read it, and the cluster of its usual servers.
inline const GpuMachine& h200_machine() {
  static const GpuMachine machine = read_gpu_machine(MOECAST_SOURCE_DIR "/hwprofiles/h200-sxm");
  return machine;
}

inline const Predictor& h200_analytic() {
  static const auto predictor =
      load_gpu_predictor(MOECAST_SOURCE_DIR "/hwprofiles/h200-sxm", MOECAST_SOURCE_DIR "/models/plan/engines");
  return *predictor;
}

inline Cluster h200_rails() { return read_cluster(MOECAST_SOURCE_DIR "/hwprofiles/clusters/h200-hgx-rail.json"); }

inline Architecture zoo_model(const std::string& name) {
  return load_architecture(MOECAST_SOURCE_DIR "/models/zoo/" + name + ".json");
}

inline EpOptions samples_of(int count) {
  EpOptions options;
  options.samples = count;
  return options;
}

}  // namespace moecast
