"""Runs the user's callbacks: one after another with a time limit, or over any concurrent.futures.Executor."""

import concurrent.futures
import math
import threading
import warnings


def call_all(function, arguments, executor=None, time_limit_s=None):
    """Values of `function` for each argument, in order; None where it raised, hung, or gave no finite number.

    With an executor, a call whose worker died is made once more: nothing is lost, nothing counted twice.
    """
    if executor is None:
        return [_limited(function, argument, time_limit_s) for argument in arguments]
    futures = [_submitted(executor, function, argument) for argument in arguments]
    values = []
    for future, argument in zip(futures, arguments):
        try:
            values.append(_number(future.result(timeout=time_limit_s)))
        except (TimeoutError, concurrent.futures.TimeoutError):
            future.cancel()
            _complain(function, f"took longer than {time_limit_s} s")
            values.append(None)
        except concurrent.futures.BrokenExecutor:
            _complain(function, "lost its worker; the call is made again in this process")
            values.append(_limited(function, argument, time_limit_s))
        except Exception as error:  # the user's: whatever it is, the search goes on
            _complain(function, f"raised {error!r}")
            values.append(None)
    return values


def _submitted(executor, function, argument):
    """A future; one that says so where the executor broke before it took the call."""
    try:
        return executor.submit(function, argument)
    except concurrent.futures.BrokenExecutor as error:
        future = concurrent.futures.Future()
        future.set_exception(error)
        return future


def _limited(function, argument, time_limit_s):
    if time_limit_s is None:
        return _caught(function, argument)
    answer = []
    # A thread that hangs cannot be stopped, only left behind: a daemon, so that the program can end.
    thread = threading.Thread(target=lambda: answer.append(_caught(function, argument)), daemon=True)
    thread.start()
    thread.join(time_limit_s)
    if not answer:
        _complain(function, f"took longer than {time_limit_s} s")
        return None
    return answer[0]


def _caught(function, argument):
    try:
        return _number(function(argument))
    except Exception as error:  # the user's: whatever it is, the search goes on
        _complain(function, f"raised {error!r}")
        return None


def _number(value):
    value = float(value)
    return value if math.isfinite(value) else None


def _complain(function, what):
    warnings.warn(
        f"callback {getattr(function, '__name__', type(function).__name__)} {what}", RuntimeWarning, stacklevel=3
    )
