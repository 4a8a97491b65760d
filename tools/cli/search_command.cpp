#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "models/core/error.h"
#include "tools/cli/command.h"
#include "tools/cli/python_package.h"

namespace moecast {
namespace {

/// Runs the package's program; where the package is missing says so, as every error is said.
constexpr const char* kStart =
    "import importlib.util, runpy, sys\n"
    "if importlib.util.find_spec('moecast') is None:\n"
    "    sys.stderr.write(f'error: {sys.executable}: has no Python package moecast, which searches\\n'\n"
    "                     \"hint: pip install '.[search]'; MOECAST_PYTHON=/path/to/python3 names another Python\\n\")\n"
    "    sys.exit(4)\n"
    "sys.argv[0] = 'moecast'\n"
    "runpy.run_module('moecast', run_name='__main__')\n";

/// The Python package searches: this process becomes it. @throws DeviceError where there is no Python to become.
int become_python(const std::vector<std::string>& arguments) {
  std::vector<std::string> words{python_program(), "-c", kStart, "search"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execvp(argv.front(), argv.data());
  throw DeviceError(words.front(), std::string("cannot be started: ") + std::strerror(errno),
                    "searches run in the Python package: pip install '.[search]', and MOECAST_PYTHON=/path/to/python3");
}

}  // namespace

void add_search_command(const Command& app, CommandLine& line) {
  const Command command = app.add_subcommand(
      "search", "Search a space of architectures (needs the Python package: pip install '.[search]')");
  command.pass_all_words();  // its own help says more
  command.callback([command, &line] { line.run = [command] { return become_python(command.remaining()); }; });
}

}  // namespace moecast
