"""The command line program, for what it alone does."""

from __future__ import annotations

import pathlib
import shutil

from moecast import _core
from moecast._data import PROGRAM


def program() -> str:
    """Path of the program: of the wheel, else of the PATH. Raises DeviceError."""
    if PROGRAM.is_file():
        return str(PROGRAM)
    found = shutil.which("moecast")
    if found and pathlib.Path(found).is_file():
        return found
    raise _core.DeviceError("moecast: the program is missing (install the package again)")
