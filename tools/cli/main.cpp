#include <csignal>

#include "tools/cli/cli.h"

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file above the size limit is an error to report, not a reason to die
  return moecast::run_cli(argc, argv);
}
