#include "tests/cli/program.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace moecast::test {
namespace {

using Clock = std::chrono::steady_clock;

void limit(int resource, std::size_t bytes) {
  const rlimit limits{bytes, bytes};
  if (bytes > 0 && setrlimit(resource, &limits) != 0) _exit(125);
}

[[noreturn]] void become_program(const std::vector<std::string>& arguments, const ProgramOptions& options, int out,
                                 int err) {
  // Profiles that the user made here are not what is tested.
  setenv("MOECAST_PROFILES", (std::filesystem::temp_directory_path() / "moecast-tests-no-profiles").c_str(), 1);
  for (const auto& [name, value] : options.environment) {
    if (value.empty()) {
      unsetenv(name.c_str());
    } else {
      setenv(name.c_str(), value.c_str(), 1);
    }
  }
  limit(RLIMIT_FSIZE, options.file_limit_bytes);
  limit(RLIMIT_AS, options.memory_limit_bytes);
  if (!options.folder.empty() && chdir(options.folder.c_str()) != 0) _exit(126);
  if (!options.stdout_to.empty()) out = open(options.stdout_to.c_str(), O_WRONLY);
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  std::vector<std::string> words{MOECAST_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  execv(MOECAST_BINARY, pointers.data());
  _exit(127);
}

}  // namespace

Finished run_moecast(const std::vector<std::string>& arguments, const ProgramOptions& options) {
  std::array<int, 2> out{};
  std::array<int, 2> err{};
  if (pipe2(out.data(), O_CLOEXEC) != 0 || pipe2(err.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) become_program(arguments, options, out[1], err[1]);
  close(out[1]);
  close(err[1]);
  Finished finished;
  std::array<pollfd, 2> streams{pollfd{out[0], POLLIN, 0}, pollfd{err[0], POLLIN, 0}};
  std::array<std::string*, 2> texts{&finished.out, &finished.err};
  bool armed = options.interrupt_after_s > 0;
  auto since = Clock::now();
  bool counting = options.interrupt_when.empty();
  for (int open_streams = 2; open_streams > 0;) {
    poll(streams.data(), streams.size(), 20);
    for (std::size_t i = 0; i < streams.size(); ++i) {
      if (streams[i].fd < 0 || streams[i].revents == 0) continue;
      std::array<char, 65536> buffer{};
      const ssize_t got = read(streams[i].fd, buffer.data(), buffer.size());
      if (got > 0) {
        texts[i]->append(buffer.data(), static_cast<std::size_t>(got));
      } else {
        close(streams[i].fd);
        streams[i].fd = -1;
        --open_streams;
      }
    }
    if (!counting && finished.err.find(options.interrupt_when) != std::string::npos) {
      counting = true;
      since = Clock::now();
    }
    if (armed && counting && std::chrono::duration<double>(Clock::now() - since).count() > options.interrupt_after_s) {
      kill(child, SIGINT);
      armed = false;
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  finished.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return finished;
}

std::string fresh_folder(const std::string& name) {
  const auto folder = std::filesystem::temp_directory_path() / ("moecast-cli-" + std::to_string(getpid())) / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder.string();
}

void write_text(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

}  // namespace moecast::test
