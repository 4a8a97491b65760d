"""What a search found: the front, its hypervolume and knee, everything that was evaluated."""

import dataclasses
import itertools
import json

import numpy

from moecast._core import InputError, UsageError


@dataclasses.dataclass
class SearchResult:
    """`status`: ok, or infeasible (then `conflicts` lists the smallest sets of `limits` that nothing tried keeps).

    `front`: rows of genomes that no other feasible one dominates, best first objective first; `columns`: metrics of
    every evaluated genome; `generations`: best objectives after each one.
    """

    space: object
    objectives: list
    constraints: list
    genomes: numpy.ndarray
    columns: dict
    scores: numpy.ndarray  #: objectives, to be minimised
    margins: numpy.ndarray  #: [genomes, limits], at most 0 where one is kept
    limits: list  #: the constraints as texts, then "has a latency", "has a value of QUALITY" of each that is asked
    generations: list
    stopped: str  #: why: generations, patience, exhausted, interrupted
    evaluated: int  #: genomes asked for, the same one counted each time
    failed: int  #: calls of the user's callbacks that gave no number
    seconds: float

    def __post_init__(self):
        self.feasible = (self.margins <= 0).all(axis=1)
        rows = numpy.flatnonzero(self.feasible)
        self.front_rows = rows[non_dominated(self.scores[rows])] if len(rows) else rows
        self.front_rows = self.front_rows[numpy.lexsort(self.scores[self.front_rows].T[::-1])]
        self.status = "ok" if len(rows) else "infeasible"
        self.conflicts = [] if len(rows) else self._conflicts()

    @property
    def front(self):
        """Genomes of the front."""
        return self.genomes[self.front_rows]

    @property
    def best(self):
        """The genome with the best first objective; None if none is feasible."""
        return self.front[0] if len(self.front_rows) else None

    def _conflicts(self):
        keeps = self.margins <= 0
        for i, constraint in enumerate(self.constraints):
            # Where no value is known, what is at fault is that there is none.
            keeps[:, i] |= numpy.isnan(self.columns[constraint.metric]).all()
        for size in range(1, len(self.limits) + 1):
            sets = itertools.combinations(range(len(self.limits)), size)
            found = [chosen for chosen in sets if not keeps[:, chosen].all(axis=1).any()]
            if found:
                return [[self.limits[i] for i in chosen] for chosen in found]
        return []

    def hypervolume(self, reference=None):
        """Of the front, by moocore through pymoo. `reference`: a point in the objectives' own directions; None = the
        worst feasible values. 0 where nothing is feasible. Raises UsageError."""
        if reference is not None:
            point = numpy.array([o.sign for o in self.objectives]) * _point(reference, len(self.objectives))
        rows = numpy.flatnonzero(self.feasible)
        if len(rows) == 0:
            return 0.0
        if reference is None:
            point = self.scores[rows].max(axis=0)
        return hypervolume(self.scores[self.front_rows], point)

    def knee(self):
        """The genome of the front nearest to the ideal point, both scaled to the front's ranges; None if infeasible."""
        if len(self.front_rows) == 0:
            return None
        scores = self.scores[self.front_rows]
        spread = scores.max(axis=0) - scores.min(axis=0)
        scaled = (scores - scores.min(axis=0)) / numpy.where(spread > 0, spread, 1)
        return self.front[int(numpy.argmin((scaled**2).sum(axis=1)))]

    def table(self, rows=None):
        """Dicts of metrics, genes and margins, of the front or of given rows."""
        out = []
        for row in self.front_rows if rows is None else rows:
            entry = {name: _plain(values[row]) for name, values in self.columns.items()}
            entry["margins"] = {str(c): float(m) for c, m in zip(self.constraints, self.margins[row])}
            entry["feasible"] = bool(self.feasible[row])
            entry["genes"] = self.space.decode(self.genomes[row])
            out.append(entry)
        return out

    def relative_to(self, baseline):
        """The front beside a baseline: ratio of FLOPs, speed-up, differences of quality.

        `baseline`: a genome that was evaluated, or a dict of metrics with `flops` and `latency`. Each row says with
        `explained` whether FLOPs alone account for the speed-up; where they do not, `why` says what else may. Raises
        UsageError, InputError.
        """
        base = baseline if isinstance(baseline, dict) else self._metrics_of(baseline)
        for name in ("flops", "latency"):
            if not base.get(name):
                raise UsageError(f"relative_to: the baseline has no {name}")
        rows = []
        for row in self.front_rows:
            flops = self.columns["flops"][row] / base["flops"]
            speedup = base["latency"] / self.columns["latency"][row]
            entry = {"flops_ratio": float(flops), "speedup_ratio": float(speedup)}
            for name in self.columns:
                if base.get(name) is not None and name not in ("flops", "latency", "latency_low", "latency_high"):
                    entry[f"{name}_difference"] = float(self.columns[name][row] - base[name])
            entry["explained"] = bool(abs(speedup * flops - 1) <= 0.1)
            if not entry["explained"]:
                rest = "shrank more than" if speedup * flops > 1 else "do not shrink with"
                entry["why"] = (
                    f"{1 / flops:.2f} x fewer FLOPs, {speedup:.2f} x faster: the step is not bound by "
                    f"arithmetic alone; weights that are read, launches and routing {rest} FLOPs"
                )
            rows.append(entry)
        return rows

    def _metrics_of(self, genome):
        genome = self.space.checked(genome)[0]
        rows = numpy.flatnonzero((self.genomes == genome).all(axis=1))
        if len(rows) == 0:
            raise InputError("relative_to: this genome was not evaluated (give a dict of its metrics)")
        return {name: _plain(values[rows[0]]) for name, values in self.columns.items()}

    def to_dict(self):
        return {
            "status": self.status,
            "conflicts": self.conflicts,
            "space": self.space.name,
            "objectives": [{"metric": o.metric, "direction": "max" if o.maximise else "min"} for o in self.objectives],
            "constraints": [str(c) for c in self.constraints],
            "front": self.table(),
            "hypervolume": self.hypervolume(),
            "generations": self.generations,
            "stopped": self.stopped,
            "evaluated": self.evaluated,
            "distinct": len(self.genomes),
            "failed_callbacks": self.failed,
            "seconds": self.seconds,
        }

    def to_text(self):
        return json.dumps(self.to_dict(), indent=2) + "\n"


def _plain(value):
    value = float(value)
    return value if value == value else None


def non_dominated(scores):
    """Rows that no other row dominates; the smaller the better. The first of equal rows stands for all."""
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    if scores.shape[1] == 1:
        return numpy.array([int(numpy.argmin(scores[:, 0]))])
    _, first = numpy.unique(scores, axis=0, return_index=True)
    first = numpy.sort(first)
    return first[NonDominatedSorting().do(scores[first], only_non_dominated_front=True)]


def hypervolume(scores, reference):
    """Volume between the points [n, objectives] (the smaller the better) and the reference. Raises UsageError."""
    from pymoo.indicators.hv import Hypervolume

    return float(Hypervolume(ref_point=_point(reference, numpy.shape(scores)[1]))(scores))


def _point(reference, objectives):
    try:
        point = numpy.asarray(reference, float).reshape(-1)
    except (TypeError, ValueError):
        point = numpy.array([])
    if len(point) != objectives or not numpy.isfinite(point).all():
        raise UsageError(f"reference: {reference!r} is no point of {objectives} objectives")
    return point
