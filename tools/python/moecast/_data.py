"""Where the package keeps its data: profiles, models, engines, and the command line program."""

import pathlib

from moecast import _core

FOLDER = pathlib.Path(__file__).parent
_SHARE = FOLDER / "share" / "moecast"
#: The command line program of the wheel.
PROGRAM = FOLDER / "bin" / "moecast"

if (_SHARE / "models" / "zoo").is_dir():
    _core.set_data_folder(str(_SHARE))
