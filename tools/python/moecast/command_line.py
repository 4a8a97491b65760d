"""What the commands that run in Python end with, and how they say what went wrong: as the program does."""

from __future__ import annotations

import argparse
import errno
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from moecast._core import DeviceError, Error, UsageError

DONE, NO, USAGE, INPUT, DEVICE, BUG, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130
#: How to go on where an error does not say it itself.
_HINTS = {
    USAGE: "moecast COMMAND --help says what each flag takes",
    INPUT: "correct the file there, or name another one",
    DEVICE: "moecast doctor says what this machine can do",
    BUG: "please report it with the command line",
}
#: Errors say in brackets at their end how to mend them.
_HINT = re.compile(r"(.+?) \(((?:[^()]|\([^()]*\))+)\)", re.DOTALL)
#: Of the machine, not of a file that was named.
_DEVICE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM}


class Parser(argparse.ArgumentParser):
    """Wrong words are a UsageError. Ends the program for --help only."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.removeprefix('argument ')} ({self.prog} --help lists the options)")


def ended(command: Callable[[], int]) -> int:
    """The exit code of a command; what it raises is printed."""
    try:
        return command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else DONE if end.code is None else USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except UsageError as error:
        return report(str(error), USAGE)
    except DeviceError as error:
        return report(str(error), DEVICE)
    except Error as error:
        return report(str(error), INPUT)
    except MemoryError:
        return report("out of memory (close other programs or ask for smaller sizes)", DEVICE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return report(f"{where}{error.strerror or error}", DEVICE if error.errno in _DEVICE_ERRORS else INPUT)
    except Exception as error:  # noqa: BLE001 (as the program's main)
        return report(f"this is a bug in moecast: {type(error).__name__}: {error}", BUG, split=False)


def report(problem: str, code: int, *, split: bool = True) -> int:
    """Prints an error and its hint. Returns the code."""
    match = _HINT.fullmatch(problem) if split else None
    what, hint = match.groups() if match else (problem, _HINTS.get(code, ""))
    print(f"error: {_printable(what)}", file=sys.stderr)
    if hint:
        print(f"hint: {_printable(hint)}", file=sys.stderr)
    return code


def _printable(text):
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
