"""A latency filter as NNI's `model_filter` takes it."""

from moecast._core import UsageError
from moecast.search.arguments import checked_workload, seconds
from moecast.search.constraints import read_constraints


class LatencyFilter:
    """True for architectures whose latency keeps a limit with a confidence. `threshold_s`: seconds.

    `times`: a Predictor, which is asked about an Architecture and a `workload` (a Workload or a Request), or a
    SpaceTimes, which is asked about a genome. What does not fit is not kept. Raises UsageError.
    """

    def __init__(self, threshold_s, times, confidence=0.95, workload=None):
        if threshold_s is None:
            raise UsageError("threshold_s: is missing")
        self.times = times
        self.workload = checked_workload(workload)
        limits = {"latency": seconds("threshold_s", threshold_s)}
        (self.constraint,) = read_constraints(limits, confidence, ("latency",))

    def __call__(self, architecture):
        if hasattr(self.times, "space"):
            costs = self.times.predict(architecture)
        else:
            costs = self.times.predict_batch([architecture], self.workload)
        columns = {"latency": costs["latency_s"], "latency_high": costs["latency_high_s"]}
        return bool(self.constraint.margins(columns)[0] <= 0)
