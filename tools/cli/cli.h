#pragma once

namespace moecast {

/// Runs one command line. @return the exit code (0 done, 1 "no", 2 usage, 3 bad input, 4 device, 70 our bug).
int run_cli(int argc, char** argv);

}  // namespace moecast
