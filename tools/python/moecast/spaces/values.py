"""What values the fields of a space may have, and JSON's own types of what Python hands in."""

import dataclasses
import difflib

import numpy

from moecast._core import InputError
from moecast.predictor import Request, Workload

#: Most elements of a range or an array that stands for choices.
_MOST = 1_000_000


def _whole(least):
    return f"a whole number of at least {least}", lambda v: type(v) is int and least <= v < 10**12


def _word(*words):
    return f"one of {', '.join(words)}", lambda v: v in words


def _routing(value):
    if not isinstance(value, str):
        return False
    count = value.removeprefix("top-")
    return value in ("token-choice", "expert-choice") or (count != value and count.isdecimal() and int(count[:9]) > 0)


_TRUTH = ("true or false", lambda v: isinstance(v, bool))
#: By the field's name without its stack: what is expected, and whether a value is that.
_KINDS = {
    **dict.fromkeys(("vocabulary", "identity_experts", "shared_experts"), _whole(0)),
    **dict.fromkeys(("hidden", "layers", "heads", "width", "experts", "expert_width", "top_k", "qkv_dim"), _whole(1)),
    **dict.fromkeys(("head_dim", "kv_heads", "cross_heads", "source_layers", "shared_width", "granularity"), _whole(1)),
    **dict.fromkeys(("mixture_experts", "mixture_top_k"), _whole(1)),
    **dict.fromkeys(("tied_embeddings", "gated", "drop_attention", "drop_ffn"), _TRUTH),
    "capacity_factor": ("a number above 0", lambda v: type(v) in (int, float) and 0 < v < 1e12),
    "routing": ("token-choice, expert-choice or top-N", _routing),
    "dtype": ("a word", lambda v: isinstance(v, str)),
    "activation": _word("relu", "relu-squared", "gelu", "silu", "identity"),
    "mix": _word("weights", "outputs"),
}


def check_value(name, value, optional, where):
    """Raises InputError where a value is none that the field may have. `optional`: null is one."""
    expected, good = _KINDS[name.rpartition(".")[2]]
    if value is None and optional:
        return
    if isinstance(value, (list, dict)) or not good(value):
        raise InputError(f"{where}: /fields/{name}: {value!r} is not {expected}")


def plain(value, where):
    """Lists of tuples, ranges and arrays, numbers of NumPy's scalars; all else as it is. Raises InputError."""
    if isinstance(value, (range, numpy.ndarray)) and len(value) > _MOST:
        raise InputError(f"{where}: {len(value)} elements are too many to choose from")
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple, range)):
        return [plain(v, where) for v in value]
    if isinstance(value, dict):
        return {key: plain(v, where) for key, v in value.items()}
    return value


def check_workload(workload, where):
    """Raises InputError where fields are none of a Workload ("kind": "step") or Request ("kind": "request")."""
    if not isinstance(workload, dict):
        raise InputError(f"{where}: /workload: {workload!r} is no object")
    kinds = {"step": Workload, "request": Request}
    kind = workload.get("kind", "step")
    if kind not in tuple(kinds):
        raise InputError(f"{where}: /workload/kind: {kind!r} is not known (write one of {', '.join(kinds)})")
    defaults = {field.name: field.default for field in dataclasses.fields(kinds[kind])}
    for name, value in workload.items():
        if name == "kind":
            continue
        if name not in defaults:
            near = difflib.get_close_matches(str(name), defaults, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"{where}: /workload/{name}: a {kind} has no such field{hint}")
        least = 1 if name in ("batch", "prompt", "target", "beams") else 0
        whole = isinstance(value, int) and not isinstance(value, bool)
        same = isinstance(value, type(defaults[name])) and isinstance(value, bool) == isinstance(defaults[name], bool)
        if not same or (whole and not least <= value < 2**31):
            raise InputError(f"{where}: /workload/{name}: {value!r} is out of range")


def check_words(words, name, known, where):
    """Raises InputError where it is no list of words, of the known ones where there are any."""
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InputError(f"{where}: /{name}: {words!r} is no list of words")
    for word in words:
        if known and word not in known:
            raise InputError(f"{where}: /{name}: {word!r} is not known (write one of {', '.join(known)})")
