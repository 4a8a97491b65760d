#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "models/core/error.h"
#include "sim/event/engine.h"
#include "sim/event/simgrid_module.h"

namespace moecast {
namespace {

constexpr const char* kModule = "libmoecast_simgrid.so";

/// Beside the program, where it is installed, or where it was built.
std::string module_path() {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  Dl_info here{};  // of the Python module, where that is what asks
  const fs::path library = dladdr(reinterpret_cast<const void*>(&module_path), &here) != 0 ? here.dli_fname : "";
  for (const fs::path& path :
       {folder / kModule, folder / "../lib/moecast" / kModule, library.parent_path() / "lib/moecast" / kModule}) {
    if (fs::exists(path, ignored)) return path.string();
  }
  return MOECAST_SIMGRID_MODULE;
}

/// Opened when events are first simulated: SimGrid and what it needs take 30 ms to load, which closed forms need not
/// wait for. @throws DeviceError.
RunSimGrid simgrid() {
  static const RunSimGrid run = [] {
    const std::string path = module_path();
    void* const module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    void* const symbol = module == nullptr ? nullptr : dlsym(module, kRunSimGrid);
    if (symbol == nullptr) {
      throw DeviceError("event engine", std::string("cannot be loaded: ") + dlerror(),
                        "is libsimgrid installed, and " + std::string(kModule) + " beside the program?");
    }
    return reinterpret_cast<RunSimGrid>(symbol);
  }();
  return run;
}

bool write_all(int file, const void* data, std::size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t done = write(file, at, size);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    at += done;
    size -= static_cast<std::size_t>(done);
  }
  return true;
}

bool read_all(int file, void* data, std::size_t size) {
  char* at = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t done = read(file, at, size);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    at += done;
    size -= static_cast<std::size_t>(done);
  }
  return true;
}

constexpr int kNoMemory = 2;
constexpr int kRefused = 3;

/// @throws DeviceError where the machine ended the process; logic_error where the simulator did not like what it got,
/// which no question should bring about.
void check_end(int status, bool complete) {
  if (complete && WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  if (signal == SIGABRT || signal == SIGSEGV || code == kRefused) {
    throw std::logic_error(signal == 0 ? "event engine: the simulator threw an error"
                                       : fmt::format("event engine: the simulator ended by signal {}", signal));
  }
  throw DeviceError("event engine", "its process ended before it was done",
                    signal == SIGKILL || code == kNoMemory ? "is there enough memory?" : "start the command again");
}

}  // namespace

std::vector<EventTimes> simulate_events(std::span<const EventGraph* const> graphs) {
  if (graphs.empty()) return {};
  const RunSimGrid run = simgrid();
  // SimGrid allows one engine a process, once: each call has a process of its own.
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw DeviceError("event engine", std::string("cannot make a pipe: ") + std::strerror(errno));
  }
  const pid_t child = fork();
  if (child < 0) {
    close(ends[0]);
    close(ends[1]);
    throw DeviceError("event engine", std::string("cannot start a process: ") + std::strerror(errno));
  }
  if (child == 0) {
    close(ends[0]);
    bool written = true;
    try {
      std::vector<EventTimes> results;
      run(graphs.data(), graphs.size(), &results);
      for (const EventTimes& times : results) {
        written = written && write_all(ends[1], times.start_s.data(), times.start_s.size() * sizeof(double)) &&
                  write_all(ends[1], times.end_s.data(), times.end_s.size() * sizeof(double));
      }
    } catch (const std::bad_alloc&) {
      _exit(kNoMemory);
    } catch (...) {
      _exit(kRefused);
    }
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  std::vector<EventTimes> all;
  bool complete = true;
  for (const EventGraph* graph : graphs) {
    EventTimes times;
    const auto tasks = static_cast<std::size_t>(graph->tasks());
    times.start_s.resize(tasks);
    times.end_s.resize(tasks);
    times.contended = true;
    complete = complete && read_all(ends[0], times.start_s.data(), tasks * sizeof(double)) &&
               read_all(ends[0], times.end_s.data(), tasks * sizeof(double));
    for (const double end : times.end_s) times.makespan_s = std::max(times.makespan_s, end);
    all.push_back(std::move(times));
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  check_end(status, complete);
  return all;
}

}  // namespace moecast
