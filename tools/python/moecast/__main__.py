"""`moecast` of the wheel: `search` runs here, all else is the program that the wheel carries."""

import os
import sys

from moecast._data import PROGRAM


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["search"]:
        from moecast.search.command import run

        return run(arguments[1:])
    if not PROGRAM.is_file():
        print(f"moecast: {PROGRAM} is missing: install the package again", file=sys.stderr)
        return 4
    os.execv(PROGRAM, ["moecast", *arguments])


if __name__ == "__main__":
    sys.exit(main())
