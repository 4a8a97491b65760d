"""Runs the user's callbacks: one after another, or over any concurrent.futures.Executor, each within a time limit."""

import collections
import concurrent.futures
import math
import threading
import warnings

from moecast._core import UsageError
from moecast.search.arguments import seconds

#: Seconds beyond the time limit after which a pool of processes that answers nothing is given up: its workers are
#: stopped, or hold what their own clock would need.
STUCK_S = 30.0


class TookTooLong(Exception):
    """A call did not end within its time limit."""


class Callbacks:
    """Calls functions of the user. What goes wrong in a call costs its own answer, never another's.

    `executor`: None, or any concurrent.futures.Executor. `time_limit_s`: of one call, from when a worker begins it.
    Where a process dies, the calls that it may have taken along are made again, one by one in new processes; other
    executors are asked once more. Raises UsageError.
    """

    def __init__(self, executor=None, time_limit_s=None):
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise UsageError(f"executor: {executor!r} is no concurrent.futures.Executor")
        self.time_limit_s = seconds("time_limit_s", time_limit_s)
        self._given = executor
        self._pool = executor  #: the given one, or what replaced it when it broke
        self._processes = isinstance(executor, concurrent.futures.ProcessPoolExecutor)

    def answers(self, function, arguments):
        """Yields (number of the argument, its float) as they arrive; None for a call that raised, hung, lost its
        worker, or gave no finite number."""
        if self._pool is None:
            for number, argument in enumerate(arguments):
                yield number, _value(function, lambda: _limited(function, argument, self.time_limit_s))
            return
        waiting = collections.deque(enumerate(arguments))
        while waiting:
            lost = []
            yield from self._together(function, waiting, lost)
            if lost:
                yield from self._one_by_one(function, lost)
                self._replace()

    def close(self):
        """Ends the workers that were started here; those of the given executor are its owner's."""
        self._end(self._pool)

    def _together(self, function, waiting, lost):
        """Answers until nothing waits or the pool breaks: then `lost` are the calls that were under way."""
        futures = {}
        # A pool holds few calls, so that one which kills a worker takes few along.
        most = 2 * (getattr(self._pool, "_max_workers", None) or len(waiting))
        try:
            while futures or (waiting and not lost):
                while waiting and not lost and len(futures) < most:
                    call = waiting.popleft()
                    futures[self._submit(self._pool, function, call[1])] = call
                done = self._wait(futures)
                if not done:  # stuck
                    lost.extend(futures.values())
                    return
                for future in sorted(done, key=lambda f: futures[f][0]):
                    call = futures.pop(future)
                    if _broken(future):
                        lost.append(call)
                    else:
                        yield call[0], _value(function, future.result)
        finally:
            for future in futures:
                future.cancel()

    def _one_by_one(self, function, lost):
        """The answers of lost calls, each alone, so that one which kills its worker takes no other along."""
        _complain(function, f"lost its worker in one of {len(lost)} calls; they are made again one by one")
        pool = self._fresh(1)
        try:
            for number, argument in lost:
                future = self._submit(pool, function, argument)
                if self._wait([future]) and not _broken(future):
                    yield number, _value(function, future.result)
                    continue
                _complain(function, "killed or stopped its worker")
                yield number, None
                self._end(pool, kill=True)
                pool = self._fresh(1)
        finally:
            self._end(pool)

    def _replace(self):
        if self._processes:
            self._end(self._pool, kill=True)
            self._pool = self._fresh(self._given._max_workers)

    def _fresh(self, workers):
        """A pool of new processes like the given ones; another executor itself."""
        if not self._processes:
            return self._given
        old = self._given
        return concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=old._mp_context, initializer=old._initializer, initargs=old._initargs
        )

    def _end(self, pool, kill=False):
        """Ends a pool that was started here."""
        if pool is self._given:
            return
        for process in list((pool._processes or {}).values()) if kill else ():
            process.kill()
        pool.shutdown(wait=kill, cancel_futures=True)

    def _submit(self, pool, function, argument):
        """A future; one that says so where the executor broke before it took the call."""
        try:
            if self.time_limit_s is None:
                return pool.submit(function, argument)
            return pool.submit(_limited, function, argument, self.time_limit_s)
        except concurrent.futures.BrokenExecutor as error:
            future = concurrent.futures.Future()
            future.set_exception(error)
            return future
        except RuntimeError as error:
            raise UsageError(f"executor: takes no calls: {error}") from None

    def _wait(self, futures):
        """Futures that are done, at least one; none where the pool is stuck."""
        most = None if self.time_limit_s is None or not self._processes else self.time_limit_s + STUCK_S
        return concurrent.futures.wait(futures, most, concurrent.futures.FIRST_COMPLETED).done


def _broken(future):
    return not future.cancelled() and isinstance(future.exception(), concurrent.futures.BrokenExecutor)


def _limited(function, argument, time_limit_s):
    """What the function returns, or raises. Raises TookTooLong."""
    if time_limit_s is None:
        return function(argument)
    ended = []

    def call():
        try:
            ended.append((function(argument), None))
        except BaseException as error:  # whatever it is, it is raised where the call was made
            ended.append((None, error))

    # A thread that hangs cannot be stopped, only left behind: a daemon, so that the program can end.
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(time_limit_s)
    if not ended:
        raise TookTooLong(f"took longer than {time_limit_s:g} s")
    value, error = ended[0]
    if error is not None:
        raise error
    return value


def _value(function, call):
    """The finite float that the call gives, else None."""
    try:
        value = float(call())
    except TookTooLong as error:
        _complain(function, str(error))
    except (Exception, SystemExit) as error:  # the user's: whatever it is, the search goes on
        _complain(function, f"raised {error!r}")
    else:
        if math.isfinite(value):
            return value
        _complain(function, f"gave {value}")
    return None


def _complain(function, what):
    warnings.warn(
        f"callback {getattr(function, '__name__', type(function).__name__)} {what}", RuntimeWarning, stacklevel=3
    )
