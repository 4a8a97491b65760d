"""Callbacks of a search that raise, hang or lose their worker; executors and a real cluster."""

import concurrent.futures
import concurrent.futures.process
import os
import signal
import sys
import time

import moecast
import numpy
import pytest
from grid import GRID, quality
from moecast.search import callbacks, search
from moecast.search.callbacks import Callbacks
from moecast.spaces import load_space

pytest.importorskip("pymoo")


def answers(function, count, executor=None, time_limit_s=None):
    """What the calls with 0 .. count - 1 give, in order."""
    calls = Callbacks(executor, time_limit_s)
    try:
        given = dict(calls.answers(function, range(count)))
    finally:
        calls.close()
    return [given[number] for number in range(count)]


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


def leave(number):
    if number == 1:
        sys.exit(3)
    return float(number)


@pytest.mark.parametrize("time_limit_s", [None, 5.0])
@pytest.mark.parametrize("pool", [None, concurrent.futures.ThreadPoolExecutor, concurrent.futures.ProcessPoolExecutor])
def test_a_callback_that_leaves_the_program_fails_alone(pool, time_limit_s):
    with pytest.warns(RuntimeWarning, match=r"raised SystemExit\(3\)"):
        if pool is None:
            assert answers(leave, 3, None, time_limit_s) == [0.0, None, 2.0]
        else:
            with pool(1) as executor:
                assert answers(leave, 3, executor, time_limit_s) == [0.0, None, 2.0]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "x", [1]])
def test_what_is_no_finite_number_is_a_failure(value):
    with pytest.warns(RuntimeWarning, match="gave|raised"):
        assert answers(lambda number: value, 1) == [None]


@pytest.mark.parametrize("workers, hang", [(1, 1), (2, 1), (2, 2), (1, 3)])
def test_time_in_the_queue_is_not_time_of_the_call(workers, hang):
    """Those that hang fail; those that waited behind them are answered."""

    def call(number):
        time.sleep(60 if number < hang else 0)
        return number

    executor = concurrent.futures.ThreadPoolExecutor(workers)
    with pytest.warns(RuntimeWarning, match="took longer than 0.3 s"):
        given = answers(call, 8, executor, 0.3)
    assert given == [None] * hang + [float(number) for number in range(hang, 8)]
    executor.shutdown(wait=False)


def die(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return float(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_call_that_kills_its_worker_fails_alone(workers):
    """This process lives, whatever a call does to the one that it runs in."""
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        with pytest.warns(RuntimeWarning, match="killed or stopped its worker"):
            assert answers(die, 12, pool) == [None if n == 3 else float(n) for n in range(12)]


def stop(number):
    if number == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    return float(number)


def test_a_worker_that_stops_is_given_up(monkeypatch):
    """One that cannot even keep its own time limit."""
    monkeypatch.setattr(callbacks, "STUCK_S", 1.0)
    pool = concurrent.futures.ProcessPoolExecutor(1)
    try:
        with pytest.warns(RuntimeWarning, match="killed or stopped its worker"):
            assert answers(stop, 4, pool, 0.5) == [None, 1.0, 2.0, 3.0]
    finally:
        for process in list(pool._processes.values()):
            process.kill()
        pool.shutdown()


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
    """Takes three calls, then loses its worker `times` times."""

    def __init__(self, times):
        self.taken, self.times = 0, times

    def submit(self, function, /, *arguments, **_named):
        self.taken += 1
        if 3 < self.taken <= 3 + self.times:
            raise concurrent.futures.process.BrokenProcessPool("a worker died")
        future = concurrent.futures.Future()
        future.set_result(function(*arguments))
        return future


def test_an_executor_that_breaks_is_asked_once_more():
    here = os.getpid()
    with pytest.warns(RuntimeWarning, match="lost its worker"):
        assert answers(lambda n: os.getpid() == here and n, 8, BrokenPool(5)) == [float(n) for n in range(8)]
    with pytest.warns(RuntimeWarning, match="killed or stopped its worker"):
        assert answers(float, 8, BrokenPool(10**6)) == [0.0, 1.0, 2.0] + [None] * 5


def test_what_is_no_executor_or_takes_no_calls():
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(moecast.UsageError, match="takes no calls"):
        answers(float, 2, pool)
    with pytest.raises(moecast.UsageError, match="executor"):
        Callbacks(5)
    for limit in (0, -1, "1", float("nan"), True):
        with pytest.raises(moecast.UsageError, match="time_limit_s"):
            Callbacks(None, limit)


def test_what_no_callback_answered_is_named_as_that(predictor):
    """Every architecture has a latency: the quality is what is missing."""

    def never(genes):
        raise ValueError("no data")

    with pytest.warns(RuntimeWarning, match="no data"):
        result = search(GRID, predictor, objectives=["a"], metrics={"a": never}, constraints=["a>1", "latency<1000s"])
    assert result.status == "infeasible" and result.conflicts == [["has a value of a"]]


def test_a_dask_cluster_whose_worker_is_killed(predictor, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("MOECAST_TEST_FLAG", str(tmp_path / "died"))
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            result = search(
                GRID,
                predictor,
                objectives=["a"],
                metrics={"a": die_once},
                executor=client.get_executor(),
                time_limit_s=60,
            )
    assert (tmp_path / "died").exists()
    assert result.failed == 0 and len(result.genomes) == 180
    space = load_space(GRID)
    numpy.testing.assert_array_equal(result.columns["a"], space.values("encoder.experts", result.genomes))
