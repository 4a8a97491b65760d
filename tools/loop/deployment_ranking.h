#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace moecast {

/// A load on a deployment, as predicted and as measured; seconds, above zero.
struct RankedService {
  std::string model;
  std::string load;        ///< prompt, output, concurrency: deployments are compared under the same load only
  std::string deployment;  ///< system, engine, formats, degrees of parallelism
  double predicted_s = 0;
  double measured_s = 0;
};

/// How well deployments of one model are put in order.
struct DeploymentRanking {
  std::string model;  ///< "all": pairs of all models together
  std::int64_t pairs = 0;
  double kendall_tau = 0;  ///< (pairs in the measured order - pairs in the other) / pairs; -1 to 1
};

/// Of every pair of different deployments of a model under the same load, each the geometric mean of its runs (other
/// versions, other days); pairs that measured the same, or are predicted the same, are left out. Models without a pair
/// are left out. "all" comes last.
std::vector<DeploymentRanking> rank_deployments(std::span<const RankedService> services);

}  // namespace moecast
