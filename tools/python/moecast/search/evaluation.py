"""Metrics of genomes: built-in costs in batches, the user's once a genome."""

import numpy

from moecast._core import InputError
from moecast.search.callbacks import Callbacks
from moecast.search.constraints import BUILT_IN, column_of
from moecast.search.metrics import LinearModel, Table


class Evaluation:
    """Objectives (minimised) and margins of genomes: at most 0 where each of `limits` is kept."""

    def __init__(self, space, times, metrics, objectives, constraints, journal, executor=None, time_limit_s=None):
        self.space = space
        self.times = times
        self.metrics = metrics
        self.objectives = objectives
        self.constraints = constraints
        self.journal = journal
        self.callbacks = Callbacks(executor, time_limit_s)
        self.needed = {o.metric for o in objectives} | {c.metric for c in constraints}
        self.own = [name for name in metrics if name in self.needed]
        #: What a column of the margins stands for: the constraints, then whether what is needed is known.
        self.limits = [*map(str, constraints), "has a latency", *(f"has a value of {name}" for name in self.own)]
        self.asked = 0  #: genomes evaluated, the same one counted each time
        self.failed = 0  #: answers that callbacks owed

    def columns(self, genomes):
        """Every metric that is known of the genomes: NaN where there is none."""
        columns = self._costs(genomes)
        for name in self.own:
            columns[name] = self._own(name, genomes)
        return columns

    def _costs(self, genomes):
        costs = self.times.predict(genomes)
        columns = {name: costs[column_of(name)] for name in BUILT_IN}
        columns["latency_low"], columns["latency_high"] = costs["latency_low_s"], costs["latency_high_s"]
        return columns

    def close(self):
        """Ends the workers that replaced lost ones."""
        self.callbacks.close()

    def _own(self, name, genomes):
        source = self.metrics[name]
        if isinstance(source, (Table, LinearModel)):
            return numpy.array([source(g) for g in genomes], float)
        values = numpy.full(len(genomes), numpy.nan)
        fresh = {}
        for row, genome in enumerate(genomes):
            known, value = self.journal.get(genome, name)
            if known:
                values[row] = numpy.nan if value is None else value
            else:
                fresh.setdefault(genome.tobytes(), []).append(row)
        asked = list(fresh.values())
        for number, value in self.callbacks.answers(source, [self.space.decode(genomes[rows[0]]) for rows in asked]):
            rows = asked[number]
            self.failed += value is None
            self.journal.add(genomes[rows[0]], name, value)
            values[rows] = numpy.nan if value is None else value
        return values

    def margins(self, genomes):
        """Margins of the constraints and of what they need: asks no callback beyond them."""
        genomes = numpy.asarray(genomes, numpy.int64)
        columns = self._costs(genomes)
        for c in self.constraints:
            if c.metric not in columns:
                columns[c.metric] = self._own(c.metric, genomes)
        return self._margins(columns)

    def _margins(self, columns):
        margins = [c.margins(columns) for c in self.constraints]
        # What cannot be timed, does not fit or has no quality is not feasible, whatever is asked.
        known = ["latency", *(name for name in self.own if name in columns)]
        margins += [numpy.where(numpy.isnan(columns[name]), 1.0, -1.0) for name in known]
        return numpy.nan_to_num(numpy.stack(margins, axis=1), nan=1e3)

    def __call__(self, genomes):
        """(objectives to be minimised [n, objectives], margins [n, limits], columns)."""
        genomes = numpy.ascontiguousarray(genomes, numpy.int64)
        if len(genomes) == 0:
            raise InputError("genomes: there are none")
        self.asked += len(genomes)
        columns = self.columns(genomes)
        objectives = numpy.stack([o.sign * columns[o.metric] for o in self.objectives], axis=1)
        return numpy.where(numpy.isnan(objectives), 1e300, objectives), self._margins(columns), columns
