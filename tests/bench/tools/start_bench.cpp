#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "hwprofiles/profile.h"
#include "tests/support/synthetic_calibration.h"

extern char** environ;

namespace moecast {
namespace {

/// Runs the program with its output thrown away. @return its exit status, -1 when it could not be started.
int run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), MOECAST_BINARY);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (const int stream : {1, 2}) posix_spawn_file_actions_addopen(&actions, stream, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int failed = posix_spawn(&child, MOECAST_BINARY, &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = -1;
  if (failed != 0 || waitpid(child, &status, 0) != child) return -1;
  return status;
}

/// From process start to the printed answer of one MoE layer, on a calibrated profile of usual size.
void StartAndPredict(benchmark::State& state) {
  const auto root = std::filesystem::temp_directory_path() / ("moecast-start-bench-" + std::to_string(getpid()));
  const std::string folder = (root / "synthetic").string();
  write_profile(folder, synthetic_profile());
  std::ofstream(folder + "/calibration.json") << calibration_text(synthetic_calibration({"onednn", "openblas"}, 200));
  const std::vector<std::string> question{
      "predict", "--hw",     folder, "--hidden",  "1024", "--width", "2048", "--experts", "32",    "--top-k",
      "4",       "--tokens", "64",   "--threads", "1",    "--dtype", "fp32", "--backend", "onednn"};
  while (state.KeepRunning()) {
    if (run(question) != 0) {
      state.SkipWithError("moecast predict failed");
      break;
    }
  }
  std::filesystem::remove_all(root);
}
BENCHMARK(StartAndPredict)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace moecast
