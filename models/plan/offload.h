#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "models/architecture/architecture.h"
#include "models/core/units.h"
#include "models/plan/deployment.h"
#include "models/plan/workload.h"

namespace moecast {

/// Equal MoE layers of which a rank does not hold all experts.
struct OffloadedLayers {
  MoeBlock block;
  double layers = 0;  ///< of a rank: pipeline stages share them
  int experts = 0;    ///< of a rank, held or not
  int resident = 0;   ///< of these, held
  Bytes expert;       ///< weights of one on this rank
  bool runs = true;   ///< in the step: encoders only where something is encoded
};

/// Weights of one routed expert on one of the ranks that it is split over; the mean where experts differ.
Bytes expert_weight_bytes(const MoeBlock& moe, const Architecture& architecture, std::int64_t hidden,
                          const Deployment& deployment);

/// The deployment with the number of resident experts a layer filled in: what was asked for, what fits into
/// `resident_bytes`, or as many as leave room for the rest of the step. Without offload: as it is.
/// @param capacity  of a rank. @throws InputError ("offload") where nothing says how much there is.
Deployment with_resident_experts(const Architecture& architecture, const Deployment& deployment,
                                 const Workload& workload, std::optional<Bytes> capacity);

/// MoE layers that do not hold all of their experts; empty where all are held.
/// @param deployment  of `with_resident_experts`. @throws InputError ("offload") for experts that differ in a layer or
/// are no feed-forward networks, ("ep") when ranks do not divide them.
std::vector<OffloadedLayers> offloaded_layers(const Architecture& architecture, const Deployment& deployment,
                                              const Workload& workload);

/// Weights that a rank leaves in the host's memory, or on the disk.
Bytes offloaded_bytes(const std::vector<OffloadedLayers>& layers);

}  // namespace moecast
