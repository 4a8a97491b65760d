"""Files of executed MoE architectures and their latencies: JSON lines, a header, then one execution a line."""

import gzip
import json
import pathlib
import zlib

import numpy

from moecast._core import InputError, UsageError
from moecast._data import SHARE
from moecast.predictor import Request, Workload
from moecast.spaces import load_space
from moecast.spaces.values import check_workload

_FOLDER = SHARE / "hwprofiles" / "datasets"
#: Bytes of the longest line that a dataset may have.
_LONGEST_LINE = 1 << 24


class Dataset:
    """Executed architectures of search spaces.

    header: dict of the machine, libraries, the spaces as they were, and of each `setup` (space, runtime, threads,
    workload).
    rows: list of dicts {"setup", "genome", "latency_s", "noise_ratio", ...}.
    """

    def __init__(self, header, rows):
        self.header, self.rows = header, rows

    def __len__(self):
        return len(self.rows)

    def __repr__(self):
        return f"<moecast.Dataset: {len(self.rows)} executions, setups {', '.join(self.header['setups'])}>"

    def of(self, setup):
        """(genomes, columns) of a setup: int64 [n, genes], and arrays [n] of latency_s, noise_ratio, ..."""
        self._setup(setup)
        rows = [row for row in self.rows if row["setup"] == setup]
        genomes = numpy.array([row["genome"] for row in rows], numpy.int64)
        names = [name for name in rows[0] if name not in ("setup", "genome")] if rows else []
        return genomes, {name: numpy.array([row[name] for row in rows], float) for name in names}

    def space(self, setup):
        """The Space that the genomes of a setup are of."""
        name = self._setup(setup).get("space")
        spaces = self.header.get("spaces")
        own = spaces.get(str(name)) if isinstance(spaces, dict) else None
        try:
            return load_space(name if own is None else own)
        except UsageError as error:
            raise InputError(f"setup {setup!r}: {error}") from None

    def workload(self, setup):
        """The Workload or Request that was executed."""
        fields = self._setup(setup).get("workload")
        check_workload(fields, f"setup {setup!r}")
        kind = Request if fields.get("kind", "step") == "request" else Workload
        return kind(**{name: value for name, value in fields.items() if name != "kind"})

    def _setup(self, name):
        if not isinstance(name, str) or name not in self.header["setups"]:
            raise InputError(f"setup: {name!r} is not known (write one of {', '.join(self.header['setups'])})")
        return self.header["setups"][name]


def dataset_names():
    """Names of the datasets that ship; what they hold and how it was measured: hwprofiles/datasets/README.md."""
    return sorted(path.name.removesuffix(".jsonl.gz") for path in _FOLDER.glob("*.jsonl.gz"))


def load_dataset(name):
    """A dataset that ships, by its name, or a file that `write_dataset` wrote.

    Raises UsageError for a name that is none, InputError naming the line at fault.
    """
    try:
        path = pathlib.Path(name)
    except TypeError:
        raise UsageError(f"dataset: {name!r} is no name or file") from None
    if path.suffix != ".gz" and path.name == str(name):
        path = _FOLDER / f"{name}.jsonl.gz"
        if not path.is_file():
            raise UsageError(f"dataset: {str(name)!r} is not known (known: {', '.join(dataset_names()) or 'none'})")
    if not path.is_file():
        raise InputError(f"{path}: cannot be read: there is no such file")
    try:
        with gzip.open(path, "rb") as file:
            lines = enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1)
            return _read(path, lines)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _read(path, lines):
    header, rows, firsts = _parsed(path, *next(lines, (1, b""))), [], {}
    setups = header.get("setups")
    if header.get("moecast_dataset") != 1 or not isinstance(setups, dict):
        raise InputError(f'{path}: line 1: is no dataset ("moecast_dataset": 1 is missing)')
    for name, setup in setups.items():
        if not isinstance(setup, dict):
            raise InputError(f"{path}: line 1: /setups/{name}: is no object")
    for number, line in lines:
        row = _parsed(path, number, line)
        _check_row(path, number, row, setups)
        first = firsts.setdefault(row["setup"], row)
        if row.keys() != first.keys() or len(row["genome"]) != len(first["genome"]):
            raise InputError(f"{path}: line {number}: has other columns or genes than the first line of its setup")
        rows.append(row)
    return Dataset(header, rows)


def _parsed(path, number, line):
    try:
        value = json.loads(line) if len(line) < _LONGEST_LINE else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: line {number}: is damaged")
    return value


def _check_row(path, number, row, setups):
    setup, genome = row.get("setup"), row.get("genome")
    if not isinstance(setup, str) or setup not in setups or not isinstance(genome, list):
        raise InputError(f"{path}: line {number}: has no known setup or no genome")
    if not all(type(i) is int and 0 <= i < 2**31 for i in genome):
        raise InputError(f"{path}: line {number}: genome: is no list of numbers of choices")
    latency = row.get("latency_s")
    if type(latency) not in (int, float) or not 0 < latency < 1e6:
        raise InputError(f"{path}: line {number}: latency_s {latency!r} is no time")
    for name in row.keys() - {"setup", "genome"}:
        if type(row[name]) not in (int, float) or not -1e300 < row[name] < 1e300:
            raise InputError(f"{path}: line {number}: {name} {row[name]!r} is no finite number")


def write_dataset(path, header, rows):
    """Writes the file; equal content gives equal bytes."""
    text = "\n".join(json.dumps(value) for value in [{"moecast_dataset": 1, **header}, *rows]) + "\n"
    pathlib.Path(path).write_bytes(gzip.compress(text.encode(), 9, mtime=0))
