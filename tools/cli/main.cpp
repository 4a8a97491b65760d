#include "tools/cli/cli.h"

int main(int argc, char** argv) { return moecast::run_cli(argc, argv); }
