"""Files of executed MoE architectures and their latencies: JSON lines, a header, then one execution a line."""

import gzip
import json
import pathlib

import numpy

from moecast._core import InputError, UsageError
from moecast._data import SHARE
from moecast.predictor import Request, Workload
from moecast.spaces import load_space


_FOLDER = SHARE / "hwprofiles" / "datasets"


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
        if setup not in self.header["setups"]:
            raise InputError(f"setup: {setup!r} is not known (write one of {', '.join(self.header['setups'])})")
        rows = [row for row in self.rows if row["setup"] == setup]
        genomes = numpy.array([row["genome"] for row in rows], numpy.int64)
        names = [name for name in rows[0] if name not in ("setup", "genome")] if rows else []
        return genomes, {name: numpy.array([row[name] for row in rows], float) for name in names}

    def space(self, setup):
        """The Space that the genomes of a setup are of."""
        name = self.header["setups"][setup]["space"]
        return load_space(self.header.get("spaces", {}).get(name, name))

    def workload(self, setup):
        """The Workload or Request that was executed."""
        fields = dict(self.header["setups"][setup]["workload"])
        return (Request if fields.pop("kind", "step") == "request" else Workload)(**fields)


def dataset_names():
    """Names of the datasets that ship; what they hold and how it was measured: hwprofiles/datasets/README.md."""
    return sorted(path.name.removesuffix(".jsonl.gz") for path in _FOLDER.glob("*.jsonl.gz"))


def load_dataset(name):
    """A dataset that ships, by its name, or a file that `write_dataset` wrote.

    Raises UsageError for a name that is none, InputError naming the line at fault.
    """
    path = pathlib.Path(name)
    if path.suffix != ".gz" and path.name == str(name):
        path = _FOLDER / f"{name}.jsonl.gz"
        if not path.is_file():
            raise UsageError(f"dataset: {str(name)!r} is not known (known: {', '.join(dataset_names()) or 'none'})")
    rows = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            header = _parsed(path, 1, file.readline())
            if header.get("moecast_dataset") != 1 or not isinstance(header.get("setups"), dict):
                raise InputError(f'{path}: line 1: is no dataset ("moecast_dataset": 1 is missing)')
            for number, line in enumerate(file, 2):
                rows.append(_checked(path, number, _parsed(path, number, line), header["setups"]))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return Dataset(header, rows)


def _parsed(path, number, line):
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: line {number}: is damaged")
    return value


def _checked(path, number, row, setups):
    latency, genome = row.get("latency_s"), row.get("genome")
    if row.get("setup") not in setups or not isinstance(genome, list) or not all(isinstance(i, int) for i in genome):
        raise InputError(f"{path}: line {number}: has no known setup or no genome")
    if not isinstance(latency, (int, float)) or not 0 < latency < 1e6:
        raise InputError(f"{path}: line {number}: latency_s {latency!r} is no time")
    return row


def write_dataset(path, header, rows):
    """Writes the file; equal content gives equal bytes."""
    text = "\n".join(json.dumps(value) for value in [{"moecast_dataset": 1, **header}, *rows]) + "\n"
    pathlib.Path(path).write_bytes(gzip.compress(text.encode(), 9, mtime=0))
