#include "tools/cli/cli.h"

namespace moecast {

int run_cli(int /*argc*/, char** /*argv*/) { return 2; }

}  // namespace moecast
