"""Chooses which architectures to measure next, has them measured, and resumes."""

import numpy

from moecast._core import InputError, UsageError
from moecast.adaptation import Correction, features
from moecast.search.arguments import checked_workload, predictor_of, whole
from moecast.search.callbacks import Callbacks
from moecast.search.journal import Journal, Memory
from moecast.spaces import SpaceTimes, load_space

#: Executions that may fail, as a multiple of those that are asked for, before a collection gives up.
_FAILURES = 10


def collect(
    space, runner, n, *, base, workload=None, batch=8, pool=4096, seed=1, path=None, executor=None, time_limit_s=None
):
    """Measures `n` different architectures of a space, chosen by uncertainty and diversity.

    `runner`: takes a dict of genes, returns measured seconds. `base`: a Predictor (or its name), the physics that says
    which architectures differ. `pool`: how many different ones it chooses among. `path`: journal; a restarted
    collection begins with what it holds. `executor`, `time_limit_s`: as in search. Where an execution fails another
    architecture is taken, until 10 n have failed.

    Returns (genomes [n, genes], seconds [n]): fewer where the pool, or what may fail, is used up. Raises UsageError,
    InputError.
    """
    n, batch, pool, seed = whole("n", n, 1), whole("batch", batch, 1), whole("pool", pool, 1), whole("seed", seed)
    if pool < n:
        raise UsageError(f"pool: {pool} is out of range (expected at least n = {n})")
    space, base = load_space(space), predictor_of(base)
    times = SpaceTimes(space, base, checked_workload(workload))
    genomes = _pool(space, pool, numpy.random.default_rng(seed))
    columns = times.predict(genomes)
    timed = ~numpy.isnan(columns["latency_s"])
    if not timed.any():
        raise InputError(f"{space.name}: no architecture of the pool has a latency on this machine")
    genomes, columns = genomes[timed], {name: values[timed] for name, values in columns.items()}
    header = {
        "moecast_search": 1,
        "collection": space.name,
        "genes": space.fingerprint,
        "workload": repr(times.workload),
        "base": [getattr(base, name, None) for name in ("hw", "_setting", "engine")],
        "seed": seed,
        "pool": pool,
    }
    callbacks = Callbacks(executor, time_limit_s)
    journal = Memory() if path is None else Journal(path, header, "collection")
    try:
        return _measure(space, runner, n, batch, genomes, columns, journal, callbacks)
    finally:
        callbacks.close()
        journal.close()


def _pool(space, count, generator):
    """Different genomes, in order: all of the space where it has no more than `count`, else at most so many."""
    if space.size() <= count:
        return space.all()
    genomes = numpy.unique(space.random(count, generator), axis=0)
    for _ in range(20):
        if len(genomes) == count:
            break
        more = numpy.concatenate([genomes, space.random(count - len(genomes), generator)])
        genomes = numpy.unique(more, axis=0)
    return genomes


def _measure(space, runner, n, batch, genomes, columns, journal, callbacks):
    phi = features(columns)
    phi = (phi - phi.mean(axis=0)) / numpy.maximum(phi.std(axis=0), 1e-9)
    rows_of = {genome.tobytes(): row for row, genome in enumerate(genomes)}
    measured = {rows_of[genome]: s for (genome, _), s in journal.known.items() if genome in rows_of}
    chosen, seconds = list(measured)[:n], list(measured.values())[:n]  # rows of the pool; None where one failed
    while (missing := n - len(seconds) + seconds.count(None)) and len(chosen) < len(genomes):
        if seconds.count(None) >= _FAILURES * n:
            break
        rows = _next(phi, chosen, _deviation(columns, chosen, seconds), min(batch, missing))
        for number, value in callbacks.answers(runner, [space.decode(genomes[r]) for r in rows]):
            journal.add(genomes[rows[number]], "seconds", value if value is not None and value > 0 else None)
        chosen += rows
        seconds += [journal.get(genomes[r], "seconds")[1] for r in rows]
    kept = [(row, value) for row, value in zip(chosen, seconds) if value is not None]
    return genomes[[row for row, _ in kept]], numpy.array([value for _, value in kept])


def _deviation(columns, chosen, seconds):
    """How unsure each candidate is, given what was measured."""
    known = [i for i, value in enumerate(seconds) if value is not None]
    if len(known) < 3:
        return numpy.ones(len(columns["latency_s"]))
    rows = [chosen[i] for i in known]
    part = {name: values[rows] for name, values in columns.items()}
    return Correction(part, [seconds[i] for i in known]).moments(columns)[1]


def _next(phi, chosen, deviation, count):
    """Greedily the candidates with the largest product of uncertainty and distance to all chosen ones, none twice."""
    distance = numpy.full(len(phi), numpy.inf)
    taken = numpy.zeros(len(phi), bool)
    rows = []

    def take(row):
        taken[row] = True
        numpy.minimum(distance, ((phi - phi[row]) ** 2).sum(axis=1), out=distance)

    for row in chosen:
        take(row)
    while len(rows) < count and not taken.all():
        if taken.any():
            row = int(numpy.argmax(numpy.where(taken, -1.0, numpy.sqrt(distance) * deviation)))
        else:
            row = int(numpy.argmin((phi**2).sum(axis=1)))
        rows.append(row)
        take(row)
    return rows
