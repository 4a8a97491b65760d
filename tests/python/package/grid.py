"""A small space with a made-up quality, for the tests of the search."""

import numpy

GRID = "automoe-180"


def quality(genes):
    """A made-up accuracy: experts help less and less, top-2 helps, capacity matters a little."""
    routing = {"top-1": 0.0, "top-2": 0.02, "expert-choice": 0.015}[genes["encoder.routing"]]
    return (
        0.5
        + 0.05 * numpy.log2(genes["encoder.experts"])
        + routing
        + 1e-5 * genes["encoder.expert_width"]
        + 0.01 * genes["encoder.capacity_factor"]
    )
