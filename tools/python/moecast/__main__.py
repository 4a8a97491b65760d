"""`moecast` of the wheel: `search` and torch's profile run here, all else is the program that the wheel carries."""

import os
import sys

from moecast._data import PROGRAM


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["search"]:
        from moecast.search.command import run

        return run(arguments[1:])
    if arguments[:1] == ["profile"] and _backend(arguments) == "torch":
        return _profile_torch(arguments[1:])
    if not PROGRAM.is_file():
        from moecast.command_line import DEVICE, report

        return report(f"{PROGRAM}: is missing (install the package again)", DEVICE)
    os.environ.setdefault("MOECAST_PYTHON", sys.executable)  # for what the program asks the package to do
    os.execv(PROGRAM, ["moecast", *arguments])


def _backend(arguments):
    """What follows --backend; None where nothing does."""
    for word, after in zip(arguments, [*arguments[1:], None]):
        if word == "--backend":
            return after
        if word.startswith("--backend="):
            return word.partition("=")[2]
    return None


def _profile_torch(arguments):
    try:
        from moecast.torch_profile import run
    except ImportError:
        from moecast.command_line import DEVICE, report

        return report("--backend torch: PyTorch is not installed (pip install torch)", DEVICE)
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
