"""What a supernet costs: all sub-networks share its weights, and a step executes one of them."""

import numpy

from moecast._core import UsageError, whole

#: Spaces up to this size are looked through, larger ones climbed.
_LISTED = 20_000
#: Random genomes that the climb starts from, beside the last choice of everything.
_STARTS = 200
#: What all weights decide, whichever sub-network is executed.
_HELD = ("memory_bytes", "total_parameters")


def supernet_cost(times, mode="max", *, samples=1000, seed=1):
    """Columns of a supernet on a machine, as a dict of floats (see Predictor.predict_batch for the names).

    times: SpaceTimes of the space. mode: "max": a step is the slowest sub-network; "sampled": the mean over `samples`
    sub-networks drawn uniformly by `seed`, as the training of a supernet draws them. Memory and parameters are those of
    the sub-network that has most in either mode, since its weights are those of the supernet. "genome": the slowest
    sub-network, None for "sampled".

    The most of a space of more than 20,000 sub-networks is climbed to, gene by gene: layers add up, so that it is
    found unless genes of one layer only pay together. Raises UsageError.
    """
    if mode not in ("max", "sampled"):
        raise UsageError(f"mode: {mode!r} is not known (write max or sampled)")
    samples, seed = whole("samples", samples, 1), whole("seed", seed, 0, None)
    held = {name: _most(times, name)[1][name] for name in _HELD}
    if mode == "max":
        genome, columns = _most(times, "latency_s")
        return {**columns, **held, "genome": genome}
    columns = times.predict(times.space.random(samples, seed))
    return {**{name: float(numpy.mean(values)) for name, values in columns.items()}, **held, "genome": None}


def _most(times, name):
    """(genome, columns) of the sub-network whose column is largest."""
    space = times.space
    if space.size() <= _LISTED:
        return _largest(times, space.all(), name)
    last = space.repaired((space.sizes - 1)[None, :])
    best, columns = _largest(times, numpy.concatenate([last, space.random(_STARTS, 1)]), name)
    while True:
        near = _neighbours(space, best)
        values = times.predict(near)[name]
        if values.max() <= columns[name]:
            return best, columns
        # Every gene that rises by itself, all at once, or the best of them: whichever is more.
        together = best.copy()
        for row in numpy.argsort(values):
            if values[row] > columns[name]:
                gene = numpy.flatnonzero(near[row] != best)[0]
                together[gene] = near[row, gene]
        both = numpy.stack([near[numpy.argmax(values)], space.repaired(together[None, :])[0]])
        best, columns = _largest(times, both, name)


def _neighbours(space, genome):
    """Every genome that differs in one gene and keeps the rules."""
    rows = numpy.repeat(genome[None, :], int((space.sizes - 1).sum()), axis=0)
    row = 0
    for gene, size in enumerate(space.sizes):
        for choice in range(size):
            if choice != genome[gene]:
                rows[row, gene] = choice
                row += 1
    kept = rows[space.valid(rows)]
    return kept if len(kept) else genome[None, :]


def _largest(times, genomes, name):
    columns = times.predict(genomes)
    row = int(numpy.argmax(columns[name]))
    return genomes[row], {key: float(values[row]) for key, values in columns.items()}
