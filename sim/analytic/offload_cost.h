#pragma once
#include <optional>

#include "hwprofiles/profile.h"
#include "models/plan/offload.h"
#include "sim/predictor.h"

namespace moecast {

/// Start of a copy: 2.7 us of 4 KiB from pinned memory on an H100, launched in a stream.
inline constexpr double kFetchStart = 3e-6;

/// The link that experts are fetched over, with a 90 % interval.
struct HostLink {
  BytesPerSecond bandwidth;
  BytesPerSecond low;
  BytesPerSecond high;
  Origin origin = Origin::assumed;
};

/// What the user gives is taken as it is; a measured quantity of the profile too, with its interval. Of a datasheet's
/// figure large copies reach 86 % (measured: 54.8 of 64 GB/s on an H100, 55.3 on an H200), in any case 75 to 95 %.
/// nullopt: nobody knows.
std::optional<HostLink> host_link(const Profile& profile, const ExpertOffload& offload);

/// Of an answer about experts that are fetched over a link that nobody knows: no time.
void require_link(Prediction& prediction);

/// A rank does not hold all experts of some layer.
bool fetches_experts(const Architecture& architecture, const Deployment& deployment, const Workload& workload);

/// Adds the time of fetching experts to a prediction of the step in which all are held, and fills in what was fetched.
///
/// Of each layer, experts that are used and not held come one after another over the link: a start and their bytes.
/// Nothing hides them (`none`), or the mean layer of the step does (`layer`: of each layer the longer of both, averaged
/// over how many are missed). Steps choose independently of each other; ranks wait for the one that misses most.
/// @param deployment  of `with_resident_experts`. @param link  nullopt: the answer says that it is needed.
void charge_offload(const Architecture& architecture, const Deployment& deployment, const Workload& workload,
                    const std::optional<HostLink>& link, const Without& without, Prediction& prediction);

}  // namespace moecast
