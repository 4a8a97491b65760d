#include "tools/loop/mpi_runner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "models/core/error.h"
#include "models/core/file.h"

namespace moecast {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(20);
/// As shells count what a signal ended.
constexpr int kBySignal = 128;
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
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// What a launcher needs after fork, where nothing may be allocated.
struct Launch {
  std::vector<char*> arguments;
  std::string log;
  std::vector<std::string> files;  ///< that are removed with the folder
  std::string folder;
};

[[noreturn]] void become_launcher(const Launch& launch) {
  // It ends its ranks when it is told to, whoever starts it dies.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int out = open(launch.log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int in = open("/dev/null", O_RDONLY);
  if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(126);
  execvp(launch.arguments.front(), launch.arguments.data());
  _exit(127);
}

/// Politely, then not: waits for the child. What it started in this group gets the same, wrappers too.
void stop_launcher(pid_t child) {
  kill(0, SIGTERM);
  for (auto waited = std::chrono::milliseconds(0); waitpid(child, nullptr, WNOHANG) == 0; waited += kPoll) {
    if (waited >= kGrace) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
      return;
    }
    const timespec pause{0, std::chrono::nanoseconds(kPoll).count()};
    nanosleep(&pause, nullptr);
  }
}

/// Starts the launcher and stays beside it. When the other end of the pipe closes, because its owner wants to stop or
/// is dead, the launcher is ended and the folder removed.
[[noreturn]] void watch(const Launch& launch, int owner) {
  setpgid(0, 0);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, SIG_IGN);
  const pid_t child = fork();
  if (child < 0) _exit(126);
  if (child == 0) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, SIG_DFL);
    become_launcher(launch);
  }
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    pollfd gone{owner, POLLIN, 0};
    if (poll(&gone, 1, static_cast<int>(kPoll.count())) <= 0) continue;
    stop_launcher(child);
    for (const std::string& file : launch.files) unlink(file.c_str());
    rmdir(launch.folder.c_str());
    kill(0, SIGKILL);  // the rest of the group, if any, and this
  }
  if (WIFEXITED(status)) _exit(WEXITSTATUS(status));
  _exit(kBySignal + WTERMSIG(status));
}

/// A launcher in a process group of its own, its output in a file.
class Launcher {
 public:
  explicit Launcher(const Launch& launch) : name_(launch.arguments.front()) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) fail();
    watcher_ = fork();
    if (watcher_ < 0) {
      close(ends[0]);
      close(ends[1]);
      fail();
    }
    if (watcher_ == 0) {
      close(ends[1]);
      watch(launch, ends[0]);
    }
    close(ends[0]);
    owner_ = ends[1];
  }
  ~Launcher() { stop(); }
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  /// Exit code of the launcher, kBySignal more than the signal that ended it; nullopt: it runs.
  std::optional<int> ended() {
    int status = 0;
    const pid_t found = waitpid(watcher_, &status, WNOHANG);
    if (found == 0 || (found < 0 && errno == EINTR)) return std::nullopt;
    if (found < 0) fail();
    watcher_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : kBySignal + WTERMSIG(status);
  }
  /// Returns when nothing of it runs.
  void stop() {
    if (owner_ >= 0) close(std::exchange(owner_, -1));
    while (watcher_ > 0 && waitpid(watcher_, nullptr, 0) < 0 && errno == EINTR) {
    }
    watcher_ = -1;
  }

 private:
  [[noreturn]] void fail() const {
    throw DeviceError(name_, std::string("cannot be started: ") + std::strerror(errno));
  }

  std::string name_;
  pid_t watcher_ = -1;
  int owner_ = -1;
};

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
  if (access(log.c_str(), R_OK) != 0) return kept;
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
  Launch launch{{}, log, {asked, answered, log}, folder.path()};
  for (std::string& word : words) launch.arguments.push_back(word.data());
  launch.arguments.push_back(nullptr);
  Launcher ranks(launch);
  std::optional<int> code;
  while (!(code = ranks.ended())) {
    if (launcher.interrupted != nullptr && launcher.interrupted->load()) {
      ranks.stop();
      throw MpiInterrupted(words.front(), "interrupted");
    }
    if (launcher.progress) launcher.progress(share_done(log));
    std::this_thread::sleep_for(kPoll);
  }
  const std::string said = last_words(log);
  if (code == 127 && said.empty()) {
    throw DeviceError(words.front(), "cannot be started", "apt install openmpi-bin, or give --mpirun");
  }
  if (*code != 0) {
    throw DeviceError(words.front(), *code > kBySignal ? fmt::format("ended by signal {}:\n{}", *code - kBySignal, said)
                                                       : fmt::format("ended with exit code {}:\n{}", *code, said));
  }
  if (access(answered.c_str(), R_OK) != 0) {
    throw DeviceError(
        words.front(),
        "ended without an error and without a measurement" +
            (said.empty() ? std::string(", and said nothing") : ":\n" + said),
        fmt::format("it should start {} copies of {} with the arguments that follow", plan.ranks, launcher.program));
  }
  MpiResults results = parse_mpi_results(read_text_file(answered), answered);
  if (results.points.size() != plan.points.size()) {
    throw InputError(answered, fmt::format("holds {} of {} points", results.points.size(), plan.points.size()));
  }
  return results;
}

}  // namespace moecast
