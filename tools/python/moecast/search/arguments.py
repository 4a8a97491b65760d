"""Checks of what search, collect and remeasure are given."""

import math
import numbers

from moecast import _core
from moecast._core import UsageError
from moecast.predictor import Predictor


def whole(name, value, least=0):
    """An int of at least `least` from any whole number, NumPy's too. Raises UsageError."""
    return _core.whole(name, value, least, None)


def is_number(value):
    """Whether it is a real number, NumPy's too; truth values are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def ratio(name, value):
    """A float from 0 to 1. Raises UsageError."""
    if not is_number(value) or not 0 <= value <= 1:
        raise UsageError(f"{name}: {value!r} is no number from 0 to 1")
    return float(value)


def seconds(name, value):
    """A finite float above 0, or None. Raises UsageError."""
    if value is None:
        return None
    if not is_number(value) or not 0 < value < math.inf:
        raise UsageError(f"{name}: {value!r} is no time in seconds")
    return float(value)


def predictor_of(hw):
    """The Predictor itself, or that of a name or folder."""
    return hw if hasattr(hw, "batch") else Predictor(hw)


def checked_workload(workload):
    """A Workload, a Request, or None. Raises UsageError."""
    if workload is not None and not hasattr(workload, "steps"):
        raise UsageError(f"workload: {workload!r} is no moecast.Workload or moecast.Request")
    return workload
