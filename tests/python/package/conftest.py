"""Fixtures of the tests of the Python package."""

import pytest

moecast = pytest.importorskip("moecast", reason="the Python package is not installed (pip install .)")

CPU = "amd-epyc-2cpu"


@pytest.fixture(scope="session")
def predictor():
    return moecast.Predictor(CPU, threads=1)


@pytest.fixture(scope="session")
def layer():
    return moecast.Architecture.moe_layer(512, 1024, experts=8, top_k=2)


@pytest.fixture(scope="session")
def grid(predictor):
    """The whole grid, evaluated."""
    from grid import GRID, quality
    from moecast.search import search

    return search(
        GRID, predictor, objectives=["accuracy", "latency"], metrics={"accuracy": quality}, method="exhaustive"
    )
