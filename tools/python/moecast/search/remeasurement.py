"""Successive re-measurement of the front: what a search found is executed, predictions learn from it, it runs again."""

import dataclasses

import numpy

from moecast.adaptation import adapt
from moecast.search.arguments import checked_workload, predictor_of, whole
from moecast.search.callbacks import Callbacks
from moecast.search.journal import Journal, Memory
from moecast.search.result import SearchResult
from moecast.spaces import SpaceTimes, load_space


@dataclasses.dataclass
class Remeasured:
    """What the last search found, with the latencies that were measured in place of predicted ones."""

    result: SearchResult  #: `columns["measured_latency"]`: NaN where nothing was measured
    genomes: numpy.ndarray  #: all that were measured
    latency_s: numpy.ndarray  #: of these
    rounds: list  #: of each: how many were measured, and the median error of what had been predicted of them
    stopped: str  #: measured: the whole front is; rounds: it still moves


def remeasure(
    space,
    hw,
    runner,
    *,
    rounds=5,
    per_round=8,
    workload=None,
    resume=None,
    executor=None,
    time_limit_s=None,
    **how,
):
    """Searches, executes some of the front, corrects the predictor by what was measured, and searches again.

    `runner`: takes a dict of genes, returns measured seconds of the workload (see moecast.runners). `how`: arguments of
    `search`, whose metrics are asked once a genome in all rounds together. `executor`, `time_limit_s`: of the runner
    and of the metrics. `resume`: journal of what was measured; a restarted run continues from it. A genome whose
    execution fails keeps its prediction and is tried again by a restarted run only.

    Returns a Remeasured. Raises UsageError, InputError.
    """
    from moecast.search import search

    rounds, per_round = whole("rounds", rounds, 1), whole("per_round", per_round, 1)
    space = load_space(space)
    base = predictor_of(hw)
    times = SpaceTimes(space, base, checked_workload(workload))
    callbacks = Callbacks(executor, time_limit_s)
    header = {
        "moecast_search": 1,
        "remeasured": space.name,
        "genes": space.fingerprint,
        "workload": repr(times.workload),
    }
    journal = Memory() if resume is None else Journal(resume, header)
    how.update(workload=workload, resume=Memory(), executor=executor, time_limit_s=time_limit_s)
    known, failed, history = {}, set(), []
    predictor, stopped = base, "rounds"
    try:
        for _ in range(rounds):
            result = search(space, predictor, initial=_genomes(space, known), **how)
            rows = _spread([r for r in result.front_rows if result.genomes[r].tobytes() not in known.keys() | failed])
            rows = rows[:per_round]
            if not rows:
                stopped = "measured"
                break
            errors = []
            measured = _execute(space, runner, result.genomes[rows], journal, callbacks)
            for row, seconds in zip(rows, measured):
                genome = result.genomes[row]
                if seconds is None:
                    failed.add(genome.tobytes())
                else:
                    known[genome.tobytes()] = (genome, seconds)
                    errors.append(abs(result.columns["latency"][row] / seconds - 1))
            history.append({"measured": len(errors), "error": float(numpy.median(errors)) if errors else None})
            if known:
                predictor = adapt(base, known.values(), times=times)
        else:
            result = search(space, predictor, initial=_genomes(space, known), **how)
    finally:
        callbacks.close()
        journal.close()
    seconds = numpy.array([s for _, s in known.values()])
    return Remeasured(_with_measured(result, known), _genomes(space, known), seconds, history, stopped)


def _genomes(space, known):
    return numpy.array([g for g, _ in known.values()], numpy.int64).reshape(-1, len(space.genes))


def _spread(rows):
    """Rows of a front, such that each first part of the list lies all over it: both ends, then halves of the gaps."""
    if len(rows) <= 2:
        return rows
    order, gaps = [0, len(rows) - 1], [(0, len(rows) - 1)]
    while gaps:
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            order.append(middle)
            gaps += [(low, middle), (middle, high)]
    return [rows[i] for i in order]


def _execute(space, runner, genomes, journal, callbacks):
    """Seconds of each genome; None where it failed, now or before."""
    fresh = [g for g in genomes if not journal.get(g, "seconds")[0]]
    for number, value in callbacks.answers(runner, [space.decode(g) for g in fresh]):
        journal.add(fresh[number], "seconds", value if value is not None and value > 0 else None)
    return [journal.get(g, "seconds")[1] for g in genomes]


def _with_measured(result, known):
    """The result with measured latencies in columns, objectives and margins."""
    columns = {name: values.copy() for name, values in result.columns.items()}
    measured = numpy.array([known.get(g.tobytes(), (None, numpy.nan))[1] for g in result.genomes])
    there = ~numpy.isnan(measured)
    for name in ("latency", "latency_low", "latency_high"):
        columns[name][there] = measured[there]
    columns["measured_latency"] = measured
    scores, margins = result.scores.copy(), result.margins.copy()
    for i, objective in enumerate(result.objectives):
        if objective.metric == "latency":
            scores[there, i] = objective.sign * measured[there]
    for i, constraint in enumerate(result.constraints):
        if constraint.metric == "latency":
            margins[:, i] = numpy.nan_to_num(constraint.margins(columns), nan=1e3)
    return dataclasses.replace(result, columns=columns, scores=scores, margins=margins)
