"""Metrics of genomes: built-in costs in batches, the user's once a genome."""

import numpy

from moecast._core import InputError
from moecast.search.callbacks import call_all
from moecast.search.constraints import BUILT_IN, column_of
from moecast.search.metrics import CsvColumn, LinearModel


class Evaluation:
    """Objectives (minimised) and constraint margins of genomes."""

    def __init__(self, space, times, metrics, objectives, constraints, journal, executor=None, time_limit_s=None):
        self.space = space
        self.times = times
        self.metrics = metrics
        self.objectives = objectives
        self.constraints = constraints
        self.journal = journal
        self.executor = executor
        self.time_limit_s = time_limit_s
        self.needed = {o.metric for o in objectives} | {c.metric for c in constraints}
        self.asked = 0  #: genomes evaluated, the same one counted each time
        self.failed = 0  #: answers that callbacks owed

    def columns(self, genomes):
        """Every metric that is known of the genomes: NaN where there is none."""
        costs = self.times.predict(genomes)
        columns = {name: costs[column_of(name)] for name in BUILT_IN}
        columns["latency_low"], columns["latency_high"] = costs["latency_low_s"], costs["latency_high_s"]
        for name, source in self.metrics.items():
            if name in self.needed:
                columns[name] = self._own(name, source, genomes)
        return columns

    def _own(self, name, source, genomes):
        values = numpy.full(len(genomes), numpy.nan)
        if isinstance(source, (CsvColumn, LinearModel)):
            return numpy.array([source(g) for g in genomes], float)
        fresh = {}
        for row, genome in enumerate(genomes):
            known, value = self.journal.get(genome, name)
            if known:
                values[row] = numpy.nan if value is None else value
            else:
                fresh.setdefault(genome.tobytes(), []).append(row)
        firsts = [rows[0] for rows in fresh.values()]
        answers = call_all(source, [self.space.decode(genomes[r]) for r in firsts], self.executor, self.time_limit_s)
        for rows, value in zip(fresh.values(), answers):
            self.failed += value is None
            self.journal.add(genomes[rows[0]], name, value)
            values[rows] = numpy.nan if value is None else value
        return values

    def margins(self, genomes):
        """Constraint margins only, at most 0 where they hold: [n, constraints + 1]. Asks no callback beyond them."""
        genomes = numpy.asarray(genomes, numpy.int64)
        costs = self.times.predict(genomes)
        columns = {name: costs[column_of(name)] for name in BUILT_IN}
        columns["latency_low"], columns["latency_high"] = costs["latency_low_s"], costs["latency_high_s"]
        for c in self.constraints:
            if c.metric not in columns:
                columns[c.metric] = self._own(c.metric, self.metrics[c.metric], genomes)
        return self._margins(columns, len(genomes))

    def _margins(self, columns, count):
        margins = [c.margins(columns) for c in self.constraints]
        # What cannot be timed or does not fit is not feasible, whatever is asked.
        margins.append(numpy.where(numpy.isnan(columns["latency"]), 1.0, -1.0))
        return numpy.nan_to_num(numpy.stack(margins, axis=1).reshape(count, -1), nan=1e3)

    def __call__(self, genomes):
        """(objectives to be minimised [n, objectives], margins [n, constraints + 1], columns)."""
        genomes = numpy.ascontiguousarray(genomes, numpy.int64)
        if len(genomes) == 0:
            raise InputError("genomes: there are none")
        self.asked += len(genomes)
        columns = self.columns(genomes)
        objectives = numpy.stack([o.sign * columns[o.metric] for o in self.objectives], axis=1)
        margins = self._margins(columns, len(genomes))
        failed = numpy.isnan(objectives).any(axis=1)
        margins[failed, -1] = 1.0
        return numpy.where(numpy.isnan(objectives), 1e300, objectives), margins, columns
