#include "tools/loop/mpi_runner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <thread>
#include <vector>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(20);
constexpr auto kGrace = std::chrono::seconds(3);

/// A folder of its own that goes with it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "moecast-mpi-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) {
      throw DeviceError(pattern, std::string("cannot be made: ") + std::strerror(errno));
    }
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// In a process group of its own, its output in a file.
pid_t start(const std::vector<std::string>& words, const std::string& log) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t child = fork();
  if (child < 0) throw DeviceError(words.front(), std::string("cannot be started: ") + std::strerror(errno));
  if (child == 0) {
    setpgid(0, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int in = open("/dev/null", O_RDONLY);
    if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(126);
    execvp(arguments.front(), arguments.data());
    _exit(127);
  }
  return child;
}

/// Politely, then not.
void stop(pid_t child) {
  kill(-child, SIGTERM);
  const auto end = std::chrono::steady_clock::now() + kGrace;
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > end) {
      kill(-child, SIGKILL);
      waitpid(child, &status, 0);
      return;
    }
    std::this_thread::sleep_for(kPoll);
  }
}

/// Of "point 3 of 40" lines.
double share_done(const std::string& log) {
  std::string text;
  try {
    text = read_text_file(log);
  } catch (const InputError&) {
    return 0;
  }
  const std::size_t at = text.rfind("point ");
  double done = 0;
  double all = 0;
  if (at == std::string::npos || std::sscanf(text.c_str() + at, "point %lf of %lf", &done, &all) != 2) return 0;
  return all > 0 ? done / all : 0;
}

/// The last lines that are not progress.
std::string last_words(const std::string& log) {
  std::string kept;
  std::istringstream text(read_text_file(log));
  for (std::string line; std::getline(text, line);) {
    if (!line.empty() && !line.starts_with("point ")) kept += "  " + line + "\n";
  }
  constexpr std::size_t kMost = 800;
  return kept.size() > kMost ? kept.substr(kept.size() - kMost) : kept;
}

}  // namespace

std::string mpirun_command(const std::string& given) {
  if (!given.empty()) return given;
  const char* known = std::getenv("MOECAST_MPIRUN");
  return known != nullptr && *known != '\0' ? known : "mpirun";
}

std::string find_mpi_program() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  for (const char* name : {"moecast-mpi", "../../moecast-mpi"}) {  // tests lie in folders below
    const std::filesystem::path program = self.parent_path() / name;
    if (access(program.c_str(), X_OK) == 0) return std::filesystem::weakly_canonical(program, error).string();
  }
  throw DeviceError("moecast-mpi", "is not beside " + self.string(),
                    "it is built where OpenMPI is installed: apt install libopenmpi-dev openmpi-bin, build again");
}

MpiResults run_mpi_plan(const MpiPlan& plan, const MpiLauncher& launcher) {
  std::vector<std::string> words;
  std::istringstream split(launcher.command);
  for (std::string word; split >> word;) words.push_back(word);
  if (words.empty()) throw UsageError("--mpirun", "names no program", "e.g. --mpirun \"mpirun --host a,b\"");
  const TemporaryFolder folder;
  const std::string asked = folder.file("plan.json");
  const std::string answered = folder.file("results.json");
  const std::string log = folder.file("log");
  write_file_atomically(asked, mpi_plan_text(plan));
  for (const std::string& word : {std::string("-n"), std::to_string(plan.ranks), launcher.program, asked, answered}) {
    words.push_back(word);
  }
  const pid_t child = start(words, log);
  int status = 0;
  while (true) {
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) break;
    if (ended < 0 && errno != EINTR) throw DeviceError(words.front(), std::strerror(errno));
    if (launcher.interrupted != nullptr && launcher.interrupted->load()) {
      stop(child);
      throw DeviceError(words.front(), "interrupted");
    }
    if (launcher.progress) launcher.progress(share_done(log));
    std::this_thread::sleep_for(kPoll);
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127 && last_words(log).empty()) {
    throw DeviceError(words.front(), "cannot be started", "apt install openmpi-bin, or give --mpirun");
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw DeviceError(words.front(),
                      fmt::format("ended with {} {}:\n{}", WIFEXITED(status) ? "exit code" : "signal",
                                  WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), last_words(log)));
  }
  MpiResults results = parse_mpi_results(read_text_file(answered), answered);
  if (results.points.size() != plan.points.size()) {
    throw InputError(answered, fmt::format("holds {} of {} points", results.points.size(), plan.points.size()));
  }
  return results;
}

}  // namespace moecast
