"""Lets the tests import the development scripts as modules, and keeps the user's own profiles out of them."""

import os
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
os.environ["MOECAST_PROFILES"] = os.path.join(tempfile.gettempdir(), "moecast-tests-no-profiles")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "dev"))
