#pragma once
#include <map>
#include <string>
#include <vector>

#include "hwprofiles/profile.h"
#include "profiler/environment.h"

namespace moecast {

/// An environment as `Profile::environment` stores it; unknown values are left out.
std::map<std::string, std::string> environment_record(const Environment& environment);

/// True if a profile was taken on a CPU of this model with the same extensions.
bool recorded_on(const Profile& profile, const Environment& machine);

/// "intel-xeon-processor-2cpu": a profile's name when nobody gives one.
std::string machine_name(const Environment& machine);

/// Thread counts that a profile holds samples of, ascending; {1} when it does not say.
std::vector<int> profiled_threads(const Profile& profile);
void record_threads(Profile& profile, const std::vector<int>& threads);

}  // namespace moecast
