"""Where the package keeps its data: profiles, models, engines, and the command line program."""

import pathlib

from moecast import _core

FOLDER = pathlib.Path(__file__).parent
#: Models, spaces, engines and profiles.
SHARE = FOLDER / "share" / "moecast"
#: The command line program of the wheel.
PROGRAM = FOLDER / "bin" / "moecast"

if (SHARE / "models" / "zoo").is_dir():
    _core.set_data_folder(str(SHARE))
