#pragma once
#include <map>
#include <string>
#include <vector>

namespace moecast::test {

struct Finished {
  int code = -1;  ///< exit code; 128 + signal when killed
  std::string out;
  std::string err;
};

struct ProgramOptions {
  std::map<std::string, std::string> environment{};  ///< added to (or, with "", removed from) this process's
  std::string stdout_to{};                           ///< a file such as /dev/full instead of a pipe
  std::string folder{};                              ///< working folder, where it is not this process's
  std::size_t file_limit_bytes = 0;                  ///< largest file that may be written; 0 = no limit
  std::size_t memory_limit_bytes = 0;                ///< address space; 0 = no limit
  double interrupt_after_s = 0;                      ///< sends SIGINT then; 0 = never
  std::string interrupt_when{};                      ///< waits for this text on stderr before counting
};

/// Runs the moecast program of this build and waits for it.
Finished run_moecast(const std::vector<std::string>& arguments, const ProgramOptions& options = {});

/// A fresh folder below the test's temporary folder.
std::string fresh_folder(const std::string& name);
void write_text(const std::string& path, const std::string& text);

}  // namespace moecast::test
