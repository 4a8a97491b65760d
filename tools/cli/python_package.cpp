#include "tools/cli/python_package.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "models/core/error.h"

namespace moecast {

std::string python_program() {
  const char* const named = std::getenv("MOECAST_PYTHON");
  return named == nullptr ? "python3" : named;
}

int run_python_module(const std::vector<std::string>& module_and_words, bool quiet) {
  std::vector<std::string> words{python_program(), "-m"};
  words.insert(words.end(), module_and_words.begin(), module_and_words.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions{};
  posix_spawn_file_actions_init(&actions);
  // Results are ours to print.
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  if (quiet) posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, argv.front(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    throw DeviceError(words.front(), std::string("cannot be started: ") + std::strerror(failed),
                      "set MOECAST_PYTHON=/path/to/python3");
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw DeviceError(words.front(), std::string("is lost: ") + std::strerror(errno));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace moecast
