"""Chooses which architectures to measure next, has them measured, and resumes."""

import numpy

from moecast._core import UsageError
from moecast.adaptation import Correction, features
from moecast.search.callbacks import call_all
from moecast.search.journal import Journal, Memory
from moecast.spaces import SpaceTimes, load_space


def collect(
    space, runner, n, *, base, workload=None, batch=8, pool=4096, seed=1, path=None, executor=None, time_limit_s=None
):
    """Measures `n` architectures of a space, chosen by uncertainty and diversity.

    `runner`: takes a dict of genes, returns measured seconds. `base`: a Predictor, the physics that says which
    architectures differ. `path`: journal; a restarted collection continues from it. `executor`: as in search.

    Returns (genomes, seconds): those that were measured, failures left out.
    """
    if n < 1 or batch < 1 or pool < n:
        raise UsageError("n, batch, pool: expected 1 <= n <= pool and a batch of at least 1")
    space = load_space(space)
    times = SpaceTimes(space, base, workload)
    generator = numpy.random.default_rng(seed)
    genomes = numpy.unique(space.random(pool, generator), axis=0)
    columns = times.predict(genomes)
    timed = ~numpy.isnan(columns["latency_s"])
    genomes, columns = genomes[timed], {name: values[timed] for name, values in columns.items()}
    n = min(n, len(genomes))
    header = {"moecast_search": 1, "collection": space.name, "genes": len(space.genes), "seed": seed, "pool": pool}
    journal = Memory() if path is None else Journal(path, header)
    try:
        return _measure(space, runner, n, batch, genomes, columns, journal, executor, time_limit_s)
    finally:
        journal.close()


def _measure(space, runner, n, batch, genomes, columns, journal, executor, time_limit_s):
    phi = features(columns)
    phi = (phi - phi.mean(axis=0)) / numpy.maximum(phi.std(axis=0), 1e-9)
    chosen, seconds = [], []
    while len(chosen) < n:
        deviation = _deviation(columns, chosen, seconds)
        rows = _next(phi, chosen, deviation, min(batch, n - len(chosen)))
        fresh = [r for r in rows if not journal.get(genomes[r], "seconds")[0]]
        answers = call_all(runner, [space.decode(genomes[r]) for r in fresh], executor, time_limit_s)
        for row, value in zip(fresh, answers):
            journal.add(genomes[row], "seconds", value if value is not None and value > 0 else None)
        for row in rows:
            chosen.append(row)
            seconds.append(journal.get(genomes[row], "seconds")[1])
    kept = [i for i, value in enumerate(seconds) if value is not None]
    return genomes[[chosen[i] for i in kept]], numpy.array([seconds[i] for i in kept])


def _deviation(columns, chosen, seconds):
    """How unsure each candidate is, given what was measured."""
    known = [i for i, value in enumerate(seconds) if value is not None]
    if len(known) < 3:
        return numpy.ones(len(columns["latency_s"]))
    rows = [chosen[i] for i in known]
    part = {name: values[rows] for name, values in columns.items()}
    return Correction(part, [seconds[i] for i in known]).moments(columns)[1]


def _next(phi, chosen, deviation, count):
    """Greedily the candidates with the largest product of uncertainty and distance to all chosen ones."""
    chosen = list(chosen)
    distance = numpy.full(len(phi), numpy.inf)
    for row in chosen:
        distance = numpy.minimum(distance, ((phi - phi[row]) ** 2).sum(axis=1))
    rows = []
    for _ in range(count):
        if numpy.isinf(distance).all():
            row = int(numpy.argmin((phi**2).sum(axis=1)))
        else:
            row = int(numpy.argmax(numpy.sqrt(distance) * deviation))
        rows.append(row)
        distance = numpy.minimum(distance, ((phi - phi[row]) ** 2).sum(axis=1))
    return rows
