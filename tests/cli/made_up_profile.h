#pragma once
#include <string>

namespace moecast::test {

/// A whole profile folder (profile.json, samples, calibration.json) of a made-up CPU: onednn in fp32 on one thread,
/// 25 GB of memory. Returns the folder.
std::string made_up_profile(const std::string& name);

std::string read_whole(const std::string& path);

/// Replaces the first `from` in a file. @throws std::runtime_error when it is not there.
void replace_in_file(const std::string& path, const std::string& from, const std::string& to);

}  // namespace moecast::test
