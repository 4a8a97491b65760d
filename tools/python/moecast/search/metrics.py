"""What a search looks at: built-in costs, and the user's qualities from a callback, a CSV column or a model file."""

import csv
import dataclasses
import json
import os

import numpy

from moecast._core import InputError, UsageError
from moecast.search.arguments import is_number
from moecast.search.constraints import BUILT_IN

#: Columns that results have beside the metrics.
_TAKEN = (*BUILT_IN, "latency_low", "latency_high", "measured_latency", "margins", "feasible", "genes")


@dataclasses.dataclass(frozen=True)
class Objective:
    """A metric and its direction."""

    metric: str
    maximise: bool = False

    @property
    def sign(self):
        return -1.0 if self.maximise else 1.0

    def __str__(self):
        return f"{self.metric} ({'max' if self.maximise else 'min'})"


def read_objectives(given, known):
    """From names ("latency", "accuracy:max", "gap:min"). Built-in costs are minimised, all else maximised unless said.

    Raises UsageError on unknown metrics and doubles.
    """
    if not isinstance(given, (str, Objective, list, tuple)):
        raise UsageError(f'objectives: {given!r} is no list (write e.g. ["latency", "accuracy:max"])')
    objectives = []
    for entry in [given] if isinstance(given, (str, Objective)) else given:
        if isinstance(entry, Objective):
            objective = entry
        else:
            metric, _, direction = str(entry).partition(":")
            if direction not in ("", "min", "max"):
                raise UsageError(f"objectives: {entry!r}: {direction!r} is no direction (write min or max)")
            objective = Objective(metric, direction == "max" if direction else metric not in BUILT_IN)
        if objective.metric not in known:
            raise UsageError(
                f"objectives: {objective.metric!r} is no metric (known: {', '.join(known)}; others are "
                "given in `metrics`)"
            )
        objectives.append(objective)
    if not objectives:
        raise UsageError("objectives: are missing")
    if len({o.metric for o in objectives}) != len(objectives):
        raise UsageError("objectives: a metric is listed twice")
    return objectives


class Table:
    """A metric that is listed: {genome as a tuple of numbers of choices: value}."""

    def __init__(self, space, name, values):
        self.where = f"metrics: {name!r}"
        self.values = {}
        for genome, value in values.items():
            if not is_number(value) or not numpy.isfinite(float(value)):
                raise InputError(f"{self.where}: {genome!r}: {value!r} is no finite number")
            self.values[space.checked(genome)[0].tobytes()] = float(value)

    def __call__(self, genome):
        try:
            return self.values[genome.tobytes()]
        except KeyError:
            raise InputError(
                f"{self.where}: holds no value of the architecture {genome.tolist()} that the search asks about"
            ) from None


class CsvColumn(Table):
    """A metric that a file lists: a column for every gene, and one for the metric."""

    def __init__(self, space, path, column):
        self.where = path
        self.values = {}
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                missing = [name for name in [*space.genes, column] if name not in (reader.fieldnames or ())]
                if missing:
                    raise InputError(f"{path}: column {missing[0]!r} is missing")
                for number, genome, value in self._rows(space, path, column, reader):
                    if self.values.setdefault(genome, value) != value:
                        raise InputError(f"{path}: line {number}: an earlier line has another {column} for these genes")
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: cannot be read: {error}") from None

    @staticmethod
    def _rows(space, path, column, reader):
        fields = {name: f for f in space.fields.values() for name in f.gene_names()}
        words = {name: {str(c): i for i, c in enumerate(f.choices)} for name, f in fields.items()}
        for number, row in enumerate(reader, 2):
            try:
                genome = numpy.array([words[name][row[name]] for name in space.genes], numpy.int64)
                value = float(row[column])
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path}: line {number}: {error} is no choice or no number") from None
            if not numpy.isfinite(value):
                raise InputError(f"{path}: line {number}: {column} is not finite")
            yield number, genome.tobytes(), value


class LinearModel:
    """A metric from a JSON file: {"intercept": a, "coefficients": {gene: b}} over numeric genes."""

    def __init__(self, space, path):
        try:
            with open(path, encoding="utf-8") as file:
                model = json.load(file)
            intercept = float(model["intercept"])
            coefficients = {str(k): float(v) for k, v in model["coefficients"].items()}
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: is no linear model: {error!r}") from None
        if not numpy.isfinite([intercept, *coefficients.values()]).all():
            raise InputError(f"{path}: a number is not finite")
        unknown = set(coefficients) - set(space.genes)
        if unknown:
            raise InputError(f"{path}: /coefficients/{sorted(unknown)[0]}: {space.name} has no such gene")
        self.intercept = intercept
        self.tables = []
        for f in space.fields.values():
            for i, name in enumerate(f.gene_names()):
                if name not in coefficients:
                    continue
                if not all(isinstance(c, (int, float)) for c in f.choices):
                    raise InputError(f"{path}: /coefficients/{name}: its choices are no numbers")
                self.tables.append((f.first + i, coefficients[name] * numpy.array(f.choices, float)))

    def __call__(self, genome):
        return self.intercept + sum(table[genome[column]] for column, table in self.tables)


def read_metrics(given, space):
    """User's metrics: a dict from names to sources, each a callable (takes a dict of genes), "FILE.csv:COLUMN",
    "FILE.json" (a linear model), or a dict from genomes (tuples) to values. Raises UsageError, InputError."""
    if given is not None and not isinstance(given, dict):
        raise UsageError(f"metrics: {given!r} is no dict of names and sources")
    metrics = {}
    for name, source in (given or {}).items():
        if not isinstance(name, str) or not name.strip() or set(name) & set("<>:"):
            raise UsageError(f"metrics: {name!r} is no name (write a word without <, > and :)")
        if name in _TAKEN:
            raise UsageError(f"metrics: {name!r} is built in (write another name)")
        metrics[name] = _source(name, source, space)
    return metrics


def _source(name, source, space):
    if callable(source):
        return source
    if isinstance(source, dict):
        return Table(space, name, source)
    text = os.fspath(source) if isinstance(source, os.PathLike) else source
    if isinstance(text, str) and ".csv" in text:
        path, _, column = text.rpartition(":") if ":" in text else (text, "", name)
        return CsvColumn(space, path, column)
    if isinstance(text, str) and text.endswith(".json"):
        return LinearModel(space, text)
    raise UsageError(f"metrics: {name!r}: expected a callable, FILE.csv:COLUMN, FILE.json or a dict of genomes")
