"""Callbacks of a search that raise, hang or lose their worker; executors and a real cluster."""

import concurrent.futures
import concurrent.futures.process
import os
import time

import numpy
import pytest
from grid import GRID, quality
from moecast.search import search
from moecast.spaces import load_space

pytest.importorskip("pymoo")


def test_callbacks_that_raise_or_hang_do_not_end_it(predictor):
    calls = []

    def fragile(genes):
        calls.append(genes)
        if genes["encoder.experts"] == 2:
            raise RuntimeError("no data")
        if (
            genes["encoder.experts"] == 4
            and genes["encoder.routing"] == "top-1"
            and genes["encoder.expert_width"] == 512
        ):
            time.sleep(60)
        return quality(genes)

    with pytest.warns(RuntimeWarning, match="raised|longer"):
        result = search(
            GRID, predictor, objectives=["a"], metrics={"a": fragile}, method="exhaustive", time_limit_s=0.2
        )
    assert len(calls) == 180 and result.failed == 36 + 3 and result.status == "ok"
    assert result.feasible.sum() == 180 - 39


def die_once(genes):
    """Kills the worker that first gets the third expert count."""
    flag = os.environ["MOECAST_TEST_FLAG"]
    if genes["encoder.experts"] == 8 and not os.path.exists(flag):
        open(flag, "w").close()
        os._exit(1)
    return float(genes["encoder.experts"])


def test_executors_and_a_worker_that_dies(predictor, tmp_path, monkeypatch):
    monkeypatch.setenv("MOECAST_TEST_FLAG", str(tmp_path / "died"))
    expected = search(GRID, predictor, objectives=["a"], metrics={"a": lambda g: float(g["encoder.experts"])})
    with concurrent.futures.ProcessPoolExecutor(2) as pool, pytest.warns(RuntimeWarning, match="lost its worker"):
        result = search(GRID, predictor, objectives=["a"], metrics={"a": die_once}, executor=pool)
    numpy.testing.assert_array_equal(result.columns["a"], expected.columns["a"])
    assert result.failed == 0


class BrokenPool(concurrent.futures.Executor):
    """Breaks while calls are still being handed to it."""

    def __init__(self):
        self.taken = 0

    def submit(self, function, /, *arguments, **_named):
        self.taken += 1
        if self.taken > 3:
            raise concurrent.futures.process.BrokenProcessPool("a worker died")
        future = concurrent.futures.Future()
        future.set_result(function(*arguments))
        return future


def test_an_executor_that_breaks_early_loses_nothing(predictor):
    with pytest.warns(RuntimeWarning, match="lost its worker"):
        result = search(
            GRID, predictor, objectives=["a"], metrics={"a": lambda g: g["encoder.experts"]}, executor=BrokenPool()
        )
    assert result.failed == 0 and len(result.genomes) == 180
    numpy.testing.assert_array_equal(result.columns["a"], load_space(GRID).values("encoder.experts", result.genomes))


def test_a_dask_cluster_whose_worker_is_killed(predictor, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("MOECAST_TEST_FLAG", str(tmp_path / "died"))
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            result = search(GRID, predictor, objectives=["a"], metrics={"a": die_once}, executor=client.get_executor())
    assert (tmp_path / "died").exists()
    assert result.failed == 0 and len(result.genomes) == 180
    space = load_space(GRID)
    numpy.testing.assert_array_equal(result.columns["a"], space.values("encoder.experts", result.genomes))
